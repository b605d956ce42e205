"""``Board``: masks in memory that processes share, so that none of them is ever sent. Knows no grammar."""

import fcntl
import mmap
import os
import weakref

import numpy as np

_INT32 = 4
_FEW_PLACES = 64


class Board:
    """Places for masks of ``words`` int32 each. One side makes it and hands out places; others are given ``file``, a descriptor.

    Whoever writes a mask says so elsewhere before it is read.
    """

    def __init__(self, words: int, file: int | None = None) -> None:
        """Without a ``file`` there are no places yet."""
        if file is None:
            file = os.memfd_create("octavo-masks", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        self.file = file
        weakref.finalize(self, os.close, file)  # what has been handed out stays
        self._words = words
        self._masks = np.zeros((0, words), np.int32)
        self._free: list[int] = []

    @property
    def masks(self) -> np.ndarray:
        """int32 [places, words], all that this side knows of: the same array until there are more."""
        return self._masks

    def take(self) -> int:
        """A place that nobody has."""
        if not self._free:
            places = len(self._masks)
            more = max(_FEW_PLACES, places)
            os.ftruncate(self.file, (places + more) * self._words * _INT32)
            self._free = [*reversed(range(places, places + more))]
        place = self._free.pop()
        self.up_to(place)
        return place

    def give_back(self, place: int) -> None:
        """Nobody reads or writes what is there any more."""
        self._free.append(place)

    def up_to(self, place: int) -> np.ndarray:
        """``masks``, ``place`` included."""
        if place >= len(self._masks):
            memory = mmap.mmap(self.file, os.fstat(self.file).st_size)
            self._masks = np.frombuffer(memory, np.int32).reshape(-1, self._words)
        return self._masks
