"""``gpu_called``: a GPU to plan for, by its name or by its memory. Knows figures, no device."""

import re
from typing import NamedTuple

from octavo.runtime.plan import Gpu

_GIB = 2**30
_UNITS = {"MB": 10**6, "GB": 10**9, "MIB": 2**20, "GIB": _GIB, "M": 2**20, "G": _GIB}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]I?B?)", re.ASCII | re.IGNORECASE)
# A process's own context, before it has loaded anything.
CONTEXT_BYTES = 500 * 2**20


class GpuModel(NamedTuple):
    """What a GPU says of itself: bytes in all, which are less than on its label, and its compute capability."""

    total: int
    capability: tuple[int, int]

    def empty(self) -> Gpu:
        """One that nobody uses yet."""
        return Gpu(self.total, self.total - CONTEXT_BYTES)


_NAMED = {
    "T4": (14.56, (7, 5)),
    "A10": (22.07, (8, 6)),
    "L4": (22.03, (8, 9)),
    "L40S": (44.39, (8, 9)),
    "A100-40GB": (39.38, (8, 0)),
    "A100-80GB": (79.15, (8, 0)),
    "H100-80GB": (79.1, (9, 0)),
    "H200": (139.72, (9, 0)),
    "B200": (178.35, (10, 0)),
}
GPUS = {name: GpuModel(int(gib * _GIB), capability) for name, (gib, capability) in _NAMED.items()}


def gpu_called(text: str) -> GpuModel:
    """The GPU that ``text`` names (``H200``) or gives the memory of (``80GiB``). Raises ``ValueError`` with a sentence."""
    found = [gpu for name, gpu in GPUS.items() if text.upper() in (name, name.split("-")[0])]
    if found:
        return found[-1]
    size = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(size[2].upper()) if size else None
    if size is None or unit is None:
        raise ValueError(f"must be a size like 80GiB, or one of {', '.join(GPUS)}; got {text!r}.")
    return GpuModel(int(float(size[1]) * unit), (9, 0))
