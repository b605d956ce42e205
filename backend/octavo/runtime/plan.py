"""``plan_memory``: what a model will take of its device and how much it can then hold, before anything is loaded.

The engine's own arithmetic over figures that are computed instead of measured. Reads the heads of files; knows no repository.
"""

import msgspec
import torch

from octavo.config import EngineConfig
from octavo.errors import LoadFailed
from octavo.models.footprint import weights_bytes
from octavo.models.loader import describe_model
from octavo.runtime.device import resolve_page_size
from octavo.runtime.memory import (
    CPU_LEVER,
    GPU_SLACK_BYTES,
    GpuMemory,
    cpu_budget,
    gpu_budget,
    gpu_lever,
    kv_spec,
    mib,
    pages_for,
    plan_pages,
)


class MemoryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One engine's memory in bytes, and what its KV cache holds.

    ``workspace_bytes``: graphs, the state of requests, what steps compute with, and slack; None on a CPU, where none is set aside.
    ``requests``: how many of ``max_model_len`` tokens fit at once, at most ``max_num_seqs``.
    """

    dtype: str
    weights_bytes: int
    workspace_bytes: int | None
    kv_bytes: int
    page_size: int
    pages: int
    tokens: int
    max_model_len: int
    requests: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + (self.workspace_bytes or 0) + self.kv_bytes


class Gpu(msgspec.Struct, frozen=True):
    """A GPU that is planned for: its size, what is free of it, and its compute capability."""

    total: int
    free: int


def plan_memory(config: EngineConfig, gpu: Gpu | None) -> MemoryPlan:
    """The plan of ``config`` on ``gpu``, on a CPU without one. Raises ``LoadFailed`` for what the engine would refuse to load.

    For a GPU, ``octavo_kernels.precompile.launch_nothing`` must hold in this process.
    """
    device = torch.device("cpu" if gpu is None else "cuda")
    model, page_size = describe_model(config, device), resolve_page_size(config.block_size, device)
    shape, precision = model
    spec, weights = kv_spec(shape, page_size, precision.activations), weights_bytes(shape, precision)
    if gpu is None:
        taken, budget, lever = None, cpu_budget(config, spec, shape.max_len), CPU_LEVER
    else:
        from octavo.runtime.footprint import gpu_footprint  # it needs Triton

        taken, lever = gpu_footprint(config, model, page_size), gpu_lever(config)
        after = gpu.free - weights - taken
        if after < GPU_SLACK_BYTES:
            raise LoadFailed(
                f"The weights take {mib(weights)} and its steps {mib(taken)}, but only {mib(gpu.free)} of the GPU's "
                f"{mib(gpu.total)} are free."
            )
        budget = gpu_budget(config, GpuMemory(gpu.total, gpu.free, after))
    pages = plan_pages(budget, spec, shape.max_len, lever)
    return MemoryPlan(
        dtype=str(precision.weights).removeprefix("torch."),
        weights_bytes=weights,
        workspace_bytes=None if taken is None else taken + GPU_SLACK_BYTES,
        kv_bytes=pages * spec.bytes_per_page,
        page_size=page_size,
        pages=pages,
        tokens=pages * page_size,
        max_model_len=shape.max_len,
        requests=min(config.max_num_seqs, pages // pages_for(shape.max_len, spec)),
    )
