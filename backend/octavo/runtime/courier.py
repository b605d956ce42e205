"""``Courier``: takes the host's arrays to the device in one copy. Knows bytes, not what they mean."""

from collections.abc import Sequence

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
        tensors = [torch.from_numpy(array) for array in arrays]
        return tensors if self._device.type == "cpu" else self._send_packed(tensors)

    def _send_packed(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        sizes = [tensor.nbytes for tensor in tensors]
        offsets = np.cumsum([0, *(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)]).tolist()
        self._make_room(offsets[-1])
        for tensor, offset, size in zip(tensors, offsets, sizes, strict=False):
            self._pinned[offset : offset + size].view(tensor.dtype).view(tensor.shape).copy_(tensor)
        packed = self._pinned[: offsets[-1]].to(self._device, non_blocking=True)
        self._arrived = torch.cuda.Event()
        self._arrived.record()
        return [
            packed[offset : offset + size].view(tensor.dtype).view(tensor.shape)
            for tensor, offset, size in zip(tensors, offsets, sizes, strict=False)
        ]

    def _make_room(self, size: int) -> None:
        if self._arrived is not None:
            self._arrived.synchronize()  # the last copy may still be reading the pinned memory
        if self._pinned.nbytes < size:
            self._pinned = torch.empty(2 * size, dtype=torch.uint8, pin_memory=True)
