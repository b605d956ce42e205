"""``Watch``: passes a text on until a marker stands in it. Knows characters only."""

from collections import deque
from collections.abc import Callable, Sequence

from octavo.text.stops import StopSet


class Watch:
    """Gives out every character but those that may begin a marker, and blanks, which belong to a marker that follows.

    A character is held at most once and leaves at most once, so a text takes time linear in its length.
    """

    def __init__(self, markers: Sequence[str], out: Callable[[str], None]) -> None:
        """Whatever is no marker goes to ``out``."""
        self._stops = StopSet(markers)
        self._state = 0
        self._blanks: list[str] = []
        self._partial: deque[str] = deque()
        self._out = out

    def step(self, character: str) -> str | None:
        """Take in one more; the marker, with the blanks before it, that is complete now."""
        stops = self._stops
        self._state = stops.step(self._state, character)
        if marker := stops.match[self._state]:
            return self._cut(marker, character)
        self._partial.append(character)
        while len(self._partial) > stops.depth[self._state]:
            self._pass(self._partial.popleft())
        return None

    def finish(self, keep_blanks: bool) -> None:
        """Give out what is held, as nothing follows; with ``keep_blanks`` also if that is only blanks."""
        if keep_blanks or self._partial:
            self._out("".join((*self._blanks, *self._partial)))
        self._forget()

    def _pass(self, character: str) -> None:
        self._blanks.append(character)
        if not character.isspace():
            self._out("".join(self._blanks))
            self._blanks.clear()

    def _cut(self, marker: str, last: str) -> str:
        """The marker may be shorter than what is held, as one marker may end within the beginning of another."""
        self._partial.append(last)
        while len(self._partial) > len(marker):
            self._pass(self._partial.popleft())
        found = "".join((*self._blanks, *self._partial))
        self._forget()
        return found

    def _forget(self) -> None:
        self._state = 0
        self._blanks.clear()
        self._partial.clear()
