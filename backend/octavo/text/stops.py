"""Stop strings: hold back what may become one, cut where one is complete. Knows characters only, no tokens.

An Aho-Corasick automaton (Aho and Corasick, 1975) reads each character once, whatever the number of stops. Its state's
depth is the length of the longest end of the text that begins a stop: exactly what must be held back.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple


class StopSet:
    """The automaton of some stop strings; immutable, shared by the samples of a request.

    State 0 is the root. ``next_state[s]`` are the trie's edges, ``fallback[s]`` the state of the longest proper end of s
    that begins a stop, ``depth[s]`` the length of s, ``match[s]`` the longest stop that ends s (empty: none).
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Build the automaton, in time linear in the length of all ``stops``."""
        self.next_state: list[dict[str, int]] = [{}]
        self.depth = [0]
        self.match = [""]
        for stop in stops:
            self.match[self._insert(stop)] = stop
        self.fallback = [0] * len(self.depth)
        self._link()

    def _insert(self, stop: str) -> int:
        state = 0
        for character in stop:
            following = self.next_state[state].get(character)
            if following is None:
                following = self.next_state[state][character] = len(self.depth)
                self.next_state.append({})
                self.depth.append(self.depth[state] + 1)
                self.match.append("")
            state = following
        return state

    def _link(self) -> None:
        """Breadth first, so that a state's fallback, which is shorter, is complete before it is used."""
        queue = deque(self.next_state[0].values())
        while queue:
            state = queue.popleft()
            self.match[state] = self.match[state] or self.match[self.fallback[state]]
            for character, child in self.next_state[state].items():
                self.fallback[child] = self.step(self.fallback[state], character)
                queue.append(child)

    def step(self, state: int, character: str) -> int:
        """The state after ``character``."""
        while state and character not in self.next_state[state]:
            state = self.fallback[state]
        return self.next_state[state].get(character, 0)


class Release(NamedTuple):
    """Text that may be shown now, and the stop string that ended it if one did."""

    text: str
    stop: str | None = None


class StopWatch:
    """Watches one text. The first stop to be complete ends it; of several complete at once the longest does.

    What is shown ends before the stop, or after it with ``include``. Nothing may be pushed after a stop was found.
    """

    def __init__(self, stops: StopSet, include: bool) -> None:
        """Watch a new text."""
        self._stops = stops
        self._include = include
        self._state = 0
        self._held = ""

    def push(self, text: str, armed: bool = True) -> Release:
        """Take in more text. Unless ``armed``, a stop that is completed here is passed over (``min_tokens``)."""
        stops, state = self._stops, self._state
        for index, character in enumerate(text):
            state = stops.step(state, character)
            if armed and stops.match[state]:
                return self._cut(self._held + text[: index + 1], stops.match[state])
        self._state = state
        seen = self._held + text
        cut = len(seen) - (0 if self._include else stops.depth[state])
        self._held = seen[cut:]
        return Release(seen[:cut])

    def finish(self) -> str:
        """The held text, when nothing follows."""
        held, self._held = self._held, ""
        return held

    def _cut(self, seen: str, stop: str) -> Release:
        self._held = ""
        return Release(seen if self._include else seen[: -len(stop)], stop)
