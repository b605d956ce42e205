"""Has kernels compiled by processes that launch nothing, into Triton's cache on disk. Knows launches, no model and no GPU.

A launcher that is given tensors without memory (``meta``) names kernel, specialisation and options as it does with real ones.
"""

import fcntl
from collections.abc import Callable
from ctypes.util import find_library
from functools import cached_property
from hashlib import sha256
from typing import IO, Any

from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.driver import CudaLauncher, CudaUtils
from triton.runtime.cache import triton_key
from triton.runtime.driver import driver
from triton.runtime.jit import DependenciesFinder, JITFunction

_note_callee = DependenciesFinder._update_hash


def _note_named_callee(self: DependenciesFinder, function: Any) -> None:
    """Triton notes a callee's constants only if that has been named before: a kernel's name on disk would depend on what a process
    compiled before it, and none would find what another has made."""
    _ = function.cache_key
    _note_callee(self, function)


DependenciesFinder._update_hash = _note_named_callee


class Claims:
    """Who compiles what, among processes forked with one open ``file``: each takes what nobody else holds.

    A claim is a lock on one byte, far behind the file's end, so whatever a process holds is free again when it ends.
    """

    def __init__(self, file: IO[bytes]) -> None:
        """Nothing is claimed yet."""
        self._file = file

    def take(self, what: str) -> bool:
        """Whether ``what`` is this process's."""
        place = int.from_bytes(sha256(what.encode()).digest()[:7], "little")
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        return True


class NamedTarget:
    """As much of a Triton driver as compiling asks for; it never speaks to a GPU."""

    def __init__(self, capability: tuple[int, int]) -> None:
        """``capability``: of the GPU that is compiled for."""
        self._target = GPUTarget("cuda", 10 * capability[0] + capability[1], 32)

    def get_current_target(self) -> GPUTarget:
        """What to compile for."""
        return self._target

    def get_current_device(self) -> int:
        """A number like any other."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """A number like any other."""
        return 0

    @cached_property
    def utils(self) -> CudaUtils:
        """Triton's own part in C, which is compiled and loaded on first use."""
        return CudaUtils()


def compile_only(capability: tuple[int, int], claims: Claims, compiled: Callable[[], None]) -> None:
    """From now on this process compiles what it can claim of all that is launched, and launches nothing.

    ``compiled`` is called after every kernel that was not on disk. What calls a kernel, for which Triton up to 3.6 compiles C, is
    made ready too where there is NVIDIA's library to link it with.
    """
    target, run, ready = NamedTarget(capability), JITFunction.run, set()
    driver.set_active(target)
    callable_here = find_library("cuda") is not None
    if callable_here and claims.take("utils"):
        _ = target.utils

    def stop_after_compiling(self: JITFunction, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        if kernel is not None and callable_here and kernel.hash not in ready:
            ready.add(kernel.hash)
            CudaLauncher(kernel.src, kernel.metadata)

    JITFunction.run = stop_after_compiling
    knobs.runtime.jit_cache_hook = lambda *, key, fn, **_: not claims.take(f"{fn.module}.{fn.name} {key}")
    knobs.compilation.listener = lambda *, cache_hit, **_: None if cache_hit else compiled()


def launch_nothing(capability: tuple[int, int]) -> None:
    """From now on this process neither compiles nor launches kernels: a launcher returns the tensors that it would have filled."""
    driver.set_active(NamedTarget(capability))
    knobs.runtime.jit_cache_hook = lambda **_: True


def when_compiled(tell: Callable[[str, float], None] | None) -> None:
    """Have ``tell`` called with the name of every kernel that this process compiles, and the seconds that this took."""

    def listener(*, src: Any, times: Any, cache_hit: bool, **_: Any) -> None:
        if tell is not None and not cache_hit:
            tell(src.name, times.total / 1e6)

    knobs.compilation.listener = listener


def read_triton() -> None:
    """Have Triton look at itself, as it does once before it finds anything in its cache; others may run meanwhile."""
    triton_key()
