"""``RowTable``: the running requests' tokens and counts, one array index a row of the device. Knows numbers, no page and no client.

A step touches these of every running request, so they lie in arrays and not in the requests. Most operations are over all rows:
that takes less time than to pick some out.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from octavo.engine.request import Request
from octavo.engine.step import StepInput

# Requests with more stop tokens than this are looked at one by one.
MOST_STOPS = 8


class InFlight(NamedTuple):
    """A step in flight, as bool over all rows: which of them it computes something for, and which then get a token.

    A row that is given back meanwhile is taken out.
    """

    rows: np.ndarray
    yielding: np.ndarray


class RowTable:
    """Arrays over rows ``0 .. max_rows - 1``; a row that nobody has is all zeros.

    ``tokens``: int32 [rows, longest], of which ``num_tokens`` are known, ``num_given`` of them when the row was taken.
    ``num_computed``: how many have keys and values once all steps in flight have ended. ``num_pending``: how many tokens those
    steps will make. ``capacity``: tokens that the row's pages hold. ``fills_at``: at how many known and computed ones there is
    one more full page for others to find. ``limit``: the most tokens to come to.
    ``held``: whether nothing is to be computed for now. ``id`` and ``client``: the owner's, clients by number.
    """

    def __init__(self, max_rows: int, longest: int, vocab_size: int) -> None:
        """``longest``: the most tokens that a request can have."""
        self.tokens = np.zeros((max_rows, longest), np.int32)  # the system gives memory only to what is written
        self.id = np.zeros(max_rows, np.int64)
        self.client = np.zeros(max_rows, np.int64)
        self.num_tokens = np.zeros(max_rows, np.int64)
        self.num_given = np.zeros(max_rows, np.int64)
        self.num_computed = np.zeros(max_rows, np.int64)
        self.num_pending = np.zeros(max_rows, np.int64)
        self.fills_at = np.zeros(max_rows, np.int64)
        self.capacity = np.zeros(max_rows, np.int64)
        self.limit = np.zeros(max_rows, np.int64)
        self.held = np.zeros(max_rows, np.bool_)
        self._in_flight: deque[InFlight] = deque()
        self._all_tokens = self.tokens.reshape(-1)
        self._watched_from = np.zeros(max_rows, np.int64)
        self._stops: list[list[int]] = [[] for _ in range(max_rows)]
        self._stopping = np.zeros(vocab_size, np.int32)  # how many rows each token may stop

    def start(self, request: Request, client: int, num_cached: int) -> None:
        """``request`` takes its row; the keys and values of ``num_cached`` tokens are there."""
        row, stops = request.row, [*request.terms.stops]
        self.id[row] = request.id
        self.client[row] = client
        self.tokens[row, : len(request.tokens)] = request.tokens
        self.num_tokens[row] = len(request.tokens)
        self.num_given[row] = len(request.tokens)
        self.num_computed[row] = num_cached
        self.limit[row] = request.terms.limit
        if len(stops) <= MOST_STOPS:
            self._stops[row] = stops
            self._stopping[stops] += 1
        self.watch(request)

    def watch(self, request: Request) -> None:
        """Look at every token of ``request``, or, once its first is told and unless it asks for more, only at its last one."""
        plain = request.answered and request.sampling.logprobs is None and len(request.terms.stops) <= MOST_STOPS
        self._watched_from[request.row] = request.terms.limit if plain else 0

    def clear(self, row: int) -> None:
        """The row's owner leaves it."""
        for column in (self.num_tokens, self.num_given, self.num_computed, self.num_pending, self.fills_at, self.capacity):
            column[row] = 0
        self.limit[row] = 0
        self.held[row] = False
        for step in self._in_flight:
            step.rows[row] = step.yielding[row] = False
        self._stopping[self._stops[row]] -= 1
        self._stops[row] = []

    def known(self, row: int) -> np.ndarray:
        """int32, the row's prompt and answer so far; a view."""
        return self.tokens[row, : self.num_tokens[row]]

    def left(self) -> np.ndarray:
        """How many tokens each row still has to compute; none while held, or if steps in flight bring it to its limit."""
        total = self.num_tokens + self.num_pending
        return (total - self.num_computed) * ((total < self.limit) & ~self.held)

    def decoding(self, left: np.ndarray) -> np.ndarray:
        """bool, which rows have only the token ``left`` to compute that was drawn last: the device has it."""
        return (left == 1) & (self.num_computed >= self.num_given)

    def launch(self, step: StepInput, decoding: np.ndarray) -> None:
        """``step`` is in flight from now on; ``decoding`` (bool over all rows) is the table's to keep."""
        rows, yielding = decoding, decoding
        if len(step.rows) > step.num_decodes:
            rows, yielding = np.zeros_like(decoding), np.zeros_like(decoding)
            rows[step.rows] = True
            yielding[step.rows] = step.samples
        self.num_pending += yielding
        self._in_flight.append(InFlight(rows, yielding))

    @contextmanager
    def landing(self) -> Iterator[InFlight]:
        """The oldest step in flight has ended; what it made is taken meanwhile."""
        step = self._in_flight[0]
        self.num_pending -= step.yielding
        yield step
        self._in_flight.popleft()

    def append(self, rows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Each of ``rows`` goes on with a token; int64, how many tokens they have now."""
        lengths = self.num_tokens[rows]
        self._all_tokens[rows * self.tokens.shape[1] + lengths] = tokens
        lengths += 1
        self.num_tokens[rows] = lengths
        return lengths

    def special(self, rows: np.ndarray, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """bool, whether those tokens with which ``rows`` came to ``lengths`` may be more than just one more token."""
        return (lengths >= self._watched_from[rows]) | (self._stopping[tokens] > 0)
