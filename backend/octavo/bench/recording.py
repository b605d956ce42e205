"""``Recording``: when the tokens of a run came, as arrays. Knows requests by number, no engine and no clock."""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np


class Steady(NamedTuple):
    """The steps after the last request's first token: all that are left decode.

    ``steps`` of them took ``seconds``, made ``tokens`` and read the keys and values of ``context_tokens``.
    """

    steps: int
    seconds: float
    tokens: int
    context_tokens: int


class Recording:
    """The tokens of ``num_requests`` requests, numbered from 0, in the order in which they came.

    ``times``: float64 [E], seconds from the submission of all requests to the end of the step that made a token.
    ``requests``: int64 [E], whose it is. ``steps``: int64 [E], the step, counting those that made any token.
    """

    def __init__(self, num_requests: int, step_ends: Sequence[float], made: Sequence[Sequence[int]], first_id: int = 0) -> None:
        """``step_ends[s]``: when step s ended. ``made[s]``: whose each of its tokens is, counted from ``first_id``."""
        sizes = np.fromiter(map(len, made), np.int64, len(made))
        self._ends = np.asarray(step_ends, np.float64)
        self.steps = np.repeat(np.arange(len(made)), sizes)
        self.times = np.repeat(self._ends, sizes)
        self.requests = np.fromiter(chain.from_iterable(made), np.int64, int(sizes.sum())) - first_id
        self._by_request = np.argsort(self.requests, kind="stable")
        self._first = np.searchsorted(self.requests[self._by_request], np.arange(num_requests))

    @property
    def seconds(self) -> float:
        """From the submission to the last token."""
        return float(self.times[-1])

    @property
    def step_seconds(self) -> np.ndarray:
        """float64 [S], from the end of the step before; the first one's from the submission."""
        return np.diff(self._ends, prepend=0)

    @property
    def first_tokens(self) -> np.ndarray:
        """float64 [num_requests], seconds to the first token of each."""
        return self.times[self._by_request[self._first]]

    @property
    def gaps(self) -> tuple[np.ndarray, np.ndarray]:
        """float64 [G] twice: seconds between a token and the one before it of the same request, and when it came."""
        times, requests = self.times[self._by_request], self.requests[self._by_request]
        inner = requests[1:] == requests[:-1]
        return np.diff(times)[inner], times[1:][inner]

    def steady(self, input_len: int) -> Steady | None:
        """The part in which every request decodes, if prompts have ``input_len`` tokens; None if there is none."""
        last_first = self.steps[self._by_request[self._first]].max()
        kept = self.steps > last_first
        if not kept.any():
            return None
        seconds = self._ends[-1] - self._ends[last_first]
        contexts = input_len + self._ordinals()[kept]
        return Steady(int(self.steps[-1] - last_first), float(seconds), int(kept.sum()), int(contexts.sum()))

    def _ordinals(self) -> np.ndarray:
        """int64 [E], how many tokens of the same request came before each."""
        ordinals = np.empty_like(self.requests)
        starts = np.repeat(self._first, np.diff([*self._first, len(self.requests)]))
        ordinals[self._by_request] = np.arange(len(self.requests)) - starts
        return ordinals
