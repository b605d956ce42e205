"""Which device a model runs on and what it is good for: threads, page size. Knows torch's devices, no model."""

import os

import torch

from octavo.engine.cores import usable_cores
from octavo.errors import LoadFailed

CPU_PAGE_SIZE = 16
GPU_PAGE_SIZE = 64


def resolve_device(name: str) -> torch.device:
    """The device called ``name``: auto, cpu, cuda or cuda:<index>. Raises ``LoadFailed`` if this machine has none such."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in {"cpu", "cuda"} or (index and (kind == "cpu" or not index.isdecimal())):
        raise LoadFailed(f"The device {name!r} is not known; use auto, cpu, cuda or cuda:<index>.")
    if kind == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= count:
        raise LoadFailed(f"The device {name!r} does not exist: torch sees {count} CUDA devices on this machine.")
    return torch.device("cuda", int(index or 0))


def use_device(device: torch.device) -> None:
    """Make ``device`` current; on a CPU, use every core that this process may, unless OMP_NUM_THREADS says otherwise."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(usable_cores())


def resolve_page_size(block_size: int | None, device: torch.device) -> int:
    """Tokens of one page: what was configured, or what suits the device. Raises ``LoadFailed``."""
    if block_size is None:
        return GPU_PAGE_SIZE if device.type == "cuda" else CPU_PAGE_SIZE
    if block_size not in {16, 32, 64, 128}:
        raise LoadFailed(f"block_size must be 16, 32, 64 or 128 tokens, got {block_size}.")
    return block_size
