"""Programmatic dependent launch: a kernel's programs start while its predecessor ends; and what a device has. Knows no kernel.

Between its start and ``after_predecessor`` a kernel may read constants only (weights, tables): whatever another kernel of the chain
writes is there after it, and not before. Every program of a kernel that is launched so must pass it, early exits included.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from triton.runtime.driver import driver

_MULTIPROCESSORS = {"cpu": 3, "meta": 132}  # Triton's interpreter: so few that work is shared out; and the largest Hopper's


class Launch(NamedTuple):
    """``PDL``: the constexpr of the kernel. ``options``: what its launch takes beside ``num_warps`` and the like."""

    PDL: bool
    options: dict[str, bool]


@triton.jit
def let_successor_start(PDL: tl.constexpr):
    """The next kernel's programs may take what room this one leaves; they wait themselves for what this one writes."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def after_predecessor(PDL: tl.constexpr):
    """From here on everything that earlier kernels wrote is visible."""
    if PDL:
        tl.extra.cuda.gdc_wait()


@lru_cache
def pdl(device: torch.device) -> Launch:
    """How to launch on ``device``: programmatically dependent from compute capability 9.0 on, else plainly."""
    able = _capability(device) >= (9, 0)
    return Launch(able, {"launch_pdl": True} if able else {})


@lru_cache
def is_hopper(device: torch.device) -> bool:
    """Whether ``device`` has Hopper's own instructions (TMA, warpgroup products), which later ones lack in part."""
    return _capability(device)[0] == 9


@lru_cache
def multiprocessors(device: torch.device) -> int:
    """How many ``device`` has; for tensors without memory (meta), by which memory is counted, as many as any Hopper."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).multi_processor_count
    return _MULTIPROCESSORS[device.type]


def _capability(device: torch.device) -> tuple[int, int]:
    """That of the GPU; for tensors without memory (meta), of the GPU that is compiled for."""
    if device.type == "meta":
        return divmod(driver.active.get_current_target().arch, 10)
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
