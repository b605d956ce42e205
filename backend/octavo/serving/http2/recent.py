"""``Recent``: how the streams of a connection ended lately, for frames that were on their way. Knows no frame."""

REMEMBERED = 1024


class Recent:
    """The last ``REMEMBERED`` streams; of those reset by us, what still comes is no mistake of the client's."""

    __slots__ = ("_reset",)

    def __init__(self) -> None:
        """None has ended."""
        self._reset: dict[int, bool] = {}

    def add(self, stream: int, reset: bool) -> None:
        """A stream has ended; ``reset``: by us, while the client was not done."""
        if len(self._reset) >= REMEMBERED:
            del self._reset[next(iter(self._reset))]
        self._reset[stream] = reset

    def was_reset(self, stream: int) -> bool:
        """Whether it was ended by us, and the client may not have known."""
        return self._reset.get(stream, False)

    def __contains__(self, stream: int) -> bool:
        """Whether it has ended lately."""
        return stream in self._reset
