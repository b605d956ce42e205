"""How many pages of KV cache fit, and the pool that holds them. Knows bytes and a model's shape, no weights and no request."""

import mmap
from typing import NamedTuple

import torch

from octavo.config import EngineConfig
from octavo.engine.step import KVSpec
from octavo.errors import LoadFailed
from octavo.models.shape import ModelShape

CPU_KV_BYTES = 512 * 2**20
# What the allocator loses to fragments and what kernels take when they are first loaded.
GPU_SLACK_BYTES = 256 * 2**20
# What the driver keeps for the two instantiated graphs of one shape, some hundred kernels.
GRAPHS_BYTES = 4 * 2**20
CPU_LEVER = "kv_cache_memory_bytes"


class GpuMemory(NamedTuple):
    """Readings of one GPU, in bytes: its size, what was free before the model was loaded, and after a full step of it."""

    total: int
    free_before: int
    free_after: int


def cpu_budget(config: EngineConfig, spec: KVSpec, max_model_len: int) -> int:
    """Bytes for the KV cache on a CPU: 512 MiB, or less if ``max_num_seqs`` of the longest requests need less."""
    if config.kv_cache_memory_bytes is not None:
        return config.kv_cache_memory_bytes
    return min(CPU_KV_BYTES, config.max_num_seqs * pages_for(max_model_len, spec) * spec.bytes_per_page)


def gpu_budget(config: EngineConfig, memory: GpuMemory) -> int:
    """Bytes for the KV cache on a GPU: the share that was granted, less what this model took, within what is still free.

    What others hold on the same GPU counts only as not free, so that several models can each be granted a share of one. Raises
    ``LoadFailed`` if ``kv_cache_memory_bytes`` is more than is free.
    """
    free = memory.free_after - GPU_SLACK_BYTES
    if config.kv_cache_memory_bytes is None:
        granted = int(memory.total * config.gpu_memory_utilization)
        taken = max(0, memory.free_before - memory.free_after)  # others may have given some back meanwhile
        return min(granted - taken - GPU_SLACK_BYTES, free)
    if config.kv_cache_memory_bytes > free:
        raise LoadFailed(
            f"kv_cache_memory_bytes asks for {mib(config.kv_cache_memory_bytes)}, but once the model is loaded only "
            f"{mib(max(0, free))} of the GPU's {mib(memory.total)} are free."
        )
    return config.kv_cache_memory_bytes


def kv_spec(shape: ModelShape, page_size: int, dtype: torch.dtype) -> KVSpec:
    """The cache of a model whose keys and values are of ``dtype``."""
    return KVSpec(page_size, shape.num_layers, shape.num_kv_heads, shape.head_dim, dtype.itemsize)


def gpu_lever(config: EngineConfig) -> str:
    """The setting that would enlarge the KV cache on a GPU."""
    return "gpu_memory_utilization" if config.kv_cache_memory_bytes is None else "kv_cache_memory_bytes"


def pages_for(tokens: int, spec: KVSpec) -> int:
    """Pages that hold ``tokens`` tokens."""
    return -(-tokens // spec.page_size)


def plan_pages(budget: int, spec: KVSpec, max_model_len: int, lever: str) -> int:
    """How many pages ``budget`` bytes hold. Raises ``LoadFailed`` if one request of ``max_model_len`` tokens does not fit.

    ``lever``: the setting that would enlarge the budget.
    """
    pages = max(0, budget) // spec.bytes_per_page
    needed = pages_for(max_model_len, spec)
    if pages < needed:
        raise LoadFailed(
            f"The KV cache may take {mib(max(0, budget))}, which holds {pages * spec.page_size} tokens, but one request of "
            f"max_model_len {max_model_len} needs {mib(needed * spec.bytes_per_page)}; raise {lever} or lower max_model_len."
        )
    return pages


def allocate_pool(num_pages: int, spec: KVSpec, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The cache, zeros: [page, layer, K/V, KV head, token, dim]. On a CPU a page takes memory only once it is written."""
    shape = (num_pages, spec.num_layers, 2, spec.num_kv_heads, spec.page_size, spec.head_dim)
    if device.type == "cpu":
        return torch.frombuffer(mmap.mmap(-1, num_pages * spec.bytes_per_page), dtype=dtype).view(shape)
    return torch.zeros(shape, dtype=dtype, device=device)


def mib(count: int) -> str:
    """``count`` bytes as they stand in a text."""
    return f"{count / 2**20:.1f} MiB"
