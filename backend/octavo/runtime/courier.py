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
        self._parcels: list[_Parcel] = []  # whose copies are yet to be told to the device
        self._arrived: torch.cuda.Event | None = None  # of the last copy, while the device's other work may overtake it
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
        """Take ``tensor``, as the device is about to make it, to the host; what is returned waits for it.

        The copy is told to the device when it is waited for, or in ``before_overwriting``: what is launched until then need not
        wait for the host to do so.
        """
        if self._back is None:
            array = tensor.numpy()
            return lambda: array
        parcel = _Parcel(tensor, torch.cuda.current_stream().record_event())
        self._parcels.append(parcel)

        def wait() -> np.ndarray:
            self._fetch_all()
            parcel.arrived.synchronize()
            if self._arrived is parcel.arrived:
                self._arrived = None
            return parcel.host.numpy()

        return wait

    def before_overwriting(self) -> None:
        """Whatever the device is told to do from now on comes after all fetches so far: what was fetched may be overwritten."""
        self._fetch_all()
        if self._arrived is not None:
            torch.cuda.current_stream().wait_event(self._arrived)
            self._arrived = None

    def _fetch_all(self) -> None:
        if self._parcels:
            with torch.cuda.stream(self._back):
                for parcel in self._parcels:
                    parcel.leave()
            self._arrived = self._parcels[-1].arrived
            self._parcels = []


class _Parcel:
    """A tensor that goes from a GPU to ``host``, and is there when it has ``arrived``; neither is known before it may ``leave``."""

    def __init__(self, tensor: torch.Tensor, made: torch.cuda.Event) -> None:
        self._tensor = tensor
        self._made = made

    def leave(self) -> None:
        """On the current stream, once it is made."""
        stream = torch.cuda.current_stream()
        self.host = torch.empty(self._tensor.shape, dtype=self._tensor.dtype, pin_memory=True)
        stream.wait_event(self._made)
        self.host.copy_(self._tensor, non_blocking=True)
        self._tensor.record_stream(stream)
        self.arrived = stream.record_event()


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
