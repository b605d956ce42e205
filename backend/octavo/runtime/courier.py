"""``Courier``: takes the host's arrays to the device in one copy, and tensors back. Knows bytes, not what they mean."""

import weakref
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise

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
        self._numbers: list[int] = []

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

    def send_rows(self, board: np.ndarray, places: Sequence[int], numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows of ``board`` (int32 [P, n]) at ``places``, which ascend, as one tensor [R, n], and ``numbers``, int64.

        A GPU reads ``board`` where it is, which is locked in memory for that until another one is sent from: what is read must not
        change before the device has come to what it is told to do next.
        """
        if self._device.type == "cpu":
            return torch.from_numpy(board[places]), torch.tensor(numbers)
        if self._board is not board:
            self._lock(board)
        here = torch.from_numpy(board)
        there = torch.empty((len(places), board.shape[1]), dtype=torch.int32, device=self._device)
        for start, run in _runs(places):
            there[start : start + len(run)].copy_(here[run.start : run.stop], non_blocking=True)
        if self._numbers != numbers:  # in most steps they are those of the step before
            self._numbers, (self._numbers_there,) = numbers, self.send([np.array(numbers)])
        return there, self._numbers_there

    def _lock(self, board: np.ndarray) -> None:
        """Have the GPU read ``board`` without a copy made first, in place of the one before."""
        if self._unlock is not None:
            self._unlock()
        torch.cuda.check_error(torch.cuda.cudart().cudaHostRegister(board.ctypes.data, board.nbytes, 0))
        self._board, self._unlock = board, weakref.finalize(self, _unlock, board)
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
    torch.cuda.synchronize()
    torch.cuda.cudart().cudaHostUnregister(board.ctypes.data)


def _runs(places: Sequence[int]) -> Iterator[tuple[int, range]]:
    """Ascending ``places`` as ranges without a gap, each with the number of places before it."""
    breaks = (np.diff(places) != 1).nonzero()[0] + 1
    for start, end in pairwise([0, *breaks.tolist(), len(places)]):
        yield start, range(places[start], places[start] + end - start)


def _ends(arrays: Sequence[np.ndarray]) -> list[int]:
    return list(accumulate(_aligned(array.nbytes) for array in arrays))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _view(packed: torch.Tensor, start: int, like: torch.Tensor) -> torch.Tensor:
    return packed[start : start + like.nbytes].view(like.dtype).view(like.shape)
