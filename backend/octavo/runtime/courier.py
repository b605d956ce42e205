"""``Courier``: takes the host's arrays to the device in one copy. Knows bytes, not what they mean."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch

# Triton specialises a kernel on whether a pointer is a multiple of this.
ALIGNMENT = 16


class Courier:
    """Takes host arrays to one device: nothing is copied for a CPU, and all go in one copy from pinned memory to a GPU."""

    def __init__(self, device: torch.device) -> None:
        """Nothing is pinned before it is needed."""
        self._device = device
        self._pinned = torch.empty(0, dtype=torch.uint8)
        self._arrived: torch.cuda.Event | None = None

    def send(self, arrays: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """The arrays as tensors. On a CPU they share memory with the arrays, which must not change while they are in use."""
        if self._device.type == "cpu":
            return [torch.from_numpy(array) for array in arrays]
        return self.send_to(torch.empty(packed_bytes(arrays), dtype=torch.uint8, device=self._device), arrays)

    def send_to(self, packed: torch.Tensor, arrays: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """The arrays as tensors in ``packed``, ``packed_bytes`` or more uint8 of a GPU's memory: equal shapes at equal places."""
        tensors = [torch.from_numpy(array) for array in arrays]
        ends = _ends(arrays)
        places = [(end - _aligned(tensor.nbytes), tensor) for end, tensor in zip(ends, tensors, strict=True)]
        self._make_room(ends[-1])
        for start, tensor in places:
            _view(self._pinned, start, tensor).copy_(tensor)
        packed[: ends[-1]].copy_(self._pinned[: ends[-1]], non_blocking=True)
        self._arrived = torch.cuda.Event()
        self._arrived.record()
        return [_view(packed, start, tensor) for start, tensor in places]

    def _make_room(self, size: int) -> None:
        if self._arrived is not None:
            self._arrived.synchronize()  # the last copy may still be reading the pinned memory
        if self._pinned.nbytes < size:
            self._pinned = torch.empty(2 * size, dtype=torch.uint8, pin_memory=True)


def packed_bytes(arrays: Sequence[np.ndarray]) -> int:
    """What ``arrays`` take on a GPU, side by side."""
    return _ends(arrays)[-1]


def _ends(arrays: Sequence[np.ndarray]) -> list[int]:
    return list(accumulate(_aligned(array.nbytes) for array in arrays))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _view(packed: torch.Tensor, start: int, like: torch.Tensor) -> torch.Tensor:
    return packed[start : start + like.nbytes].view(like.dtype).view(like.shape)
