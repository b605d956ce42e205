"""``Intake``: how much a client may still send, on a connection or on a stream. Knows no frame."""


class Intake:
    """A window of ``size`` bytes that the client uses up, and that is given back in parts of half of it."""

    __slots__ = ("_left", "_owed", "_size")

    def __init__(self, size: int) -> None:
        """All of it may be used."""
        self._size = self._left = size
        self._owed = 0

    def take(self, count: int) -> bool:
        """``count`` bytes have come; whether they were allowed to."""
        self._left -= count
        return self._left >= 0

    def give_back(self, count: int) -> int:
        """``count`` of them are dealt with; by how much the client's window is to be widened now, which may be 0."""
        self.owe(count)
        if 2 * self._owed < self._size:
            return 0
        increment, self._owed = self._owed, 0
        self._left += increment
        return increment

    def owe(self, count: int) -> int:
        """``count`` of them are not dealt with yet, and are given back with the next ones that are."""
        self._owed += count
        return 0
