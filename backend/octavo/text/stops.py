"""Stops: hold back what may become one, cut where one is complete. Knows characters, or token ids, and not how they go together.

An Aho-Corasick automaton (Aho and Corasick, 1975) reads each character once, whatever the number of stops. Its state's
depth is the length of the longest end of the text that begins a stop: exactly what must be held back.
"""

from collections import deque
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeAlias, TypeVar

Tokens: TypeAlias = tuple[int, ...]
Row = TypeVar("Row", str, Tokens)


class StopSet(Generic[Row]):
    """The automaton of some stops, strings or token ids; immutable, shared by the samples of a request.

    State 0 is the root. ``next_state[s]`` are the trie's edges, ``fallback[s]`` the state of the longest proper end of s
    that begins a stop, ``depth[s]`` the length of s, ``match[s]`` the longest stop that ends s, if any.
    """

    def __init__(self, stops: Sequence[Row]) -> None:
        """Build the automaton, in time linear in the length of all ``stops``."""
        self.next_state: list[dict[str | int, int]] = [{}]
        self.depth = [0]
        self.match: list[Row | None] = [None]
        for stop in stops:
            self.match[self._insert(stop)] = stop
        self.fallback = [0] * len(self.depth)
        self._link()

    def _insert(self, stop: Row) -> int:
        state = 0
        for character in stop:
            following = self.next_state[state].get(character)
            if following is None:
                following = self.next_state[state][character] = len(self.depth)
                self.next_state.append({})
                self.depth.append(self.depth[state] + 1)
                self.match.append(None)
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

    def step(self, state: int, character: str | int) -> int:
        """The state after ``character``."""
        while state and character not in self.next_state[state]:
            state = self.fallback[state]
        return self.next_state[state].get(character, 0)


class Release(NamedTuple, Generic[Row]):
    """What may be shown now, and the stop that ended it if one did."""

    shown: Row
    stop: Row | None = None


class StopWatch(Generic[Row]):
    """Watches one text, or its token ids. The first stop to be complete ends it; of several complete at once the longest does.

    What is shown ends before the stop, or after it with ``include``. Nothing may be pushed after a stop was found.
    """

    def __init__(self, stops: StopSet[Row], include: bool, nothing: Row) -> None:
        """Watch a new text, of which there is ``nothing``."""
        self._stops: StopSet[Row] = stops
        self._include = include
        self._state = 0
        self._held: Row = nothing
        self._nothing: Row = nothing

    def push(self, text: Row, armed: bool = True) -> Release[Row]:
        """Take in more of it. Unless ``armed``, a stop that is completed here is passed over (``min_tokens``)."""
        stops, state = self._stops, self._state
        for index, character in enumerate(text):
            state = stops.step(state, character)
            if armed and (stop := stops.match[state]) is not None:
                return self._cut(self._held + text[: index + 1], stop)
        self._state = state
        seen = self._held + text
        cut = len(seen) - (0 if self._include else stops.depth[state])
        self._held = seen[cut:]
        return Release(seen[:cut])

    def finish(self) -> Row:
        """What is held, when nothing follows."""
        held, self._held = self._held, self._nothing
        return held

    def _cut(self, seen: Row, stop: Row) -> Release[Row]:
        self._held = self._nothing
        return Release(seen if self._include else seen[: -len(stop)], stop)
