"""``Courier``: takes the host's arrays to the device in one copy, and tensors back. Knows bytes, not what they mean."""

import weakref
from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
import torch

# Triton specialises a kernel on whether a pointer is a multiple of this.
ALIGNMENT = 16


class Courier:
    """Moves arrays between the host and one device; the host waits for nothing but what it reads.

    Nothing is copied for a CPU. To a GPU all arrays of a call go in one copy, from pinned memory that the allocator does not hand
    out again before the copy has ended.
    """

    def __init__(self, device: torch.device) -> None:
        """What comes back from a GPU goes on a stream of its own."""
        self._device = device
        self._back = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._arrived: torch.cuda.Event | None = None
        self._board: np.ndarray | None = None
        self._unlock: weakref.finalize[..., Courier] | None = None

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
        pinned = torch.empty(ends[-1], dtype=torch.uint8, pin_memory=True)
        for start, tensor in places:
            _view(pinned, start, tensor).copy_(tensor)
        packed[: ends[-1]].copy_(pinned, non_blocking=True)
        return [_view(packed, start, tensor) for start, tensor in places]

    def share(self, board: np.ndarray) -> torch.Tensor:
        """``board`` as a tensor of the host's memory that the device's kernels can read.

        It is locked in memory until another one is shared. A kernel reads what stands there when its turn comes, not when it is
        launched.
        """
        if self._board is not board:
            if self._device.type == "cuda":
                self._lock(board)
            self._board, self._shared = board, torch.from_numpy(board)
        return self._shared

    def _lock(self, board: np.ndarray) -> None:
        """Have the GPU read ``board`` where it is, and no longer the one before, which may then go."""
        if self._unlock is not None:
            self._unlock()
        torch.cuda.check_error(torch.cuda.cudart().cudaHostRegister(board.ctypes.data, board.nbytes, 0))
        self._unlock = weakref.finalize(self, _unlock, board)
        self._unlock.atexit = False

    def fetch(self, tensor: torch.Tensor) -> Callable[[], np.ndarray]:
        """Start to take ``tensor`` to the host; what is returned waits for it. See ``before_overwriting``."""
        if self._back is None:
            array = tensor.numpy()
            return lambda: array
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._back.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._back):
            host.copy_(tensor, non_blocking=True)
        tensor.record_stream(self._back)
        self._arrived = self._back.record_event()

        def wait(arrived: torch.cuda.Event = self._arrived) -> np.ndarray:
            arrived.synchronize()
            return host.numpy()

        return wait

    def before_overwriting(self) -> None:
        """Whatever the device is told to do from now on comes after all fetches so far: what was fetched may be overwritten."""
        if self._arrived is not None:
            torch.cuda.current_stream().wait_event(self._arrived)


def packed_bytes(arrays: Sequence[np.ndarray]) -> int:
    """What ``arrays`` take on a GPU, side by side."""
    return _ends(arrays)[-1]


def _unlock(board: np.ndarray) -> None:
    torch.cuda.synchronize()  # a kernel that is yet to run may read it
    torch.cuda.cudart().cudaHostUnregister(board.ctypes.data)


def _ends(arrays: Sequence[np.ndarray]) -> list[int]:
    return list(accumulate(_aligned(array.nbytes) for array in arrays))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _view(packed: torch.Tensor, start: int, like: torch.Tensor) -> torch.Tensor:
    return packed[start : start + like.nbytes].view(like.dtype).view(like.shape)
