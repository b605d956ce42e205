"""``Share``: how much of a turn of the event loop one connection's messages may take. Knows no message."""

from collections.abc import Callable

from octavo.serving.http2.turn import Turn

# A message that is refused takes a tenth of a millisecond.
MESSAGES_PER_TURN = 256


class Share:
    """So many messages are handed over in a turn; streams that have more wait in line, and go on in the turns after it."""

    __slots__ = ("_due", "_left", "_line", "_number", "_read_on", "_turn")

    def __init__(self, turn: Turn, read_on: Callable[[int], None]) -> None:
        """``read_on`` has a stream go on, which takes from the share again."""
        self._turn, self._read_on = turn, read_on
        self._number, self._left = turn.number, MESSAGES_PER_TURN
        self._line: dict[int, None] = {}
        self._due = False

    def take(self, stream: int) -> bool:
        """Whether ``stream`` may hand a message over now. If not, it is told to go on when it may."""
        number = self._turn.number
        if self._number != number:
            self._number, self._left = number, MESSAGES_PER_TURN
        if self._left:
            self._left -= 1
            return True
        self._line[stream] = None
        self._go_on_soon()
        return False

    def use_up(self) -> None:
        """This turn has brought enough."""
        self._number, self._left = self._turn.number, 0

    def forget(self, stream: int) -> None:
        """The stream is over."""
        self._line.pop(stream, None)

    def _go_on_soon(self) -> None:
        if not self._due:
            self._due = True
            self._turn.work(self._go_on)

    def _go_on(self) -> None:
        """Who has waited longest is first; who is not done waits again behind the others."""
        self._due = False
        try:
            while self._line and not self._due:
                stream = next(iter(self._line))
                del self._line[stream]
                self._read_on(stream)
        finally:
            if self._line:
                self._go_on_soon()
