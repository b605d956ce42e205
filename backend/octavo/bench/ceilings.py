"""What a device can do, to hold a measurement against: copy a large buffer, multiply large matrices. Knows no model."""

import time
from collections.abc import Callable
from statistics import median

import torch

from octavo.bench.work import Ceilings

_ROUNDS = 20
_GPU_COPY_BYTES, _CPU_COPY_BYTES = 2 * 2**30, 256 * 2**20
_GPU_SIDE, _CPU_SIDE = 8192, 1024


def measure(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Medians of some runs each; the matrices hold random numbers of ``dtype``."""
    ceilings = Ceilings(_copy_rate(device), _matmul_rate(device, dtype))
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return ceilings


def _copy_rate(device: torch.device) -> float:
    """Over far more bytes than any cache holds, and at most a quarter of what is free."""
    size = _CPU_COPY_BYTES
    if device.type == "cuda":
        size = min(_GPU_COPY_BYTES, torch.cuda.mem_get_info(device)[0] // 4)
    source = torch.empty(size, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source), device)


def _matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    side = _GPU_SIDE if device.type == "cuda" else _CPU_SIDE
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / _seconds(lambda: a @ b, device)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    call()
    return median(_gpu_seconds(call) if device.type == "cuda" else _cpu_seconds(call) for _ in range(_ROUNDS))


def _gpu_seconds(call: Callable[[], object]) -> float:
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    call()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3


def _cpu_seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
