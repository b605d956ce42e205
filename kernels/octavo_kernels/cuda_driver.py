"""What neither torch nor Triton passes on of CUDA's driver. Knows its C interface; no tensor and no kernel of ours."""

import ctypes
from functools import cache

_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76
_PREFER_L1 = 2


def capability(index: int) -> tuple[int, int]:
    """The compute capability of the GPU called cuda:``index``, without a context on it: processes may still be forked."""
    _call("cuInit", 0)
    device = ctypes.c_int()
    _call("cuDeviceGet", ctypes.byref(device), index)
    major, minor = ctypes.c_int(), ctypes.c_int()
    _call("cuDeviceGetAttribute", ctypes.byref(major), _COMPUTE_CAPABILITY_MAJOR, device)
    _call("cuDeviceGetAttribute", ctypes.byref(minor), _COMPUTE_CAPABILITY_MINOR, device)
    return major.value, minor.value


@cache
def prefer_l1_cache(function: int) -> None:
    """Launch the compiled kernel with this handle with as large a first-level cache as there is.

    Left alone the driver leaves a multiprocessor divided as the kernel before had it, and a kernel that streams through its loads
    is a sixth slower in what the rings of attention leave.
    """
    _call("cuFuncSetCacheConfig", ctypes.c_void_p(function), _PREFER_L1)


def _call(name: str, *arguments: object) -> None:
    error = getattr(ctypes.CDLL("libcuda.so.1"), name)(*arguments)
    if error:
        raise OSError(f"CUDA's driver answered {name} with error {error}.")
