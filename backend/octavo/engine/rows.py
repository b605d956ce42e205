"""``RowTable``: the running requests' tokens and counts, one array index a row of the device. Knows numbers, no page and no client.

A step touches these of every running request, so they lie in arrays and not in the requests.
"""

import numpy as np

from octavo.engine.request import Request

# Requests with more stop tokens than this are looked at one by one.
MOST_STOPS = 8


class RowTable:
    """Arrays over rows ``0 .. max_rows - 1``; a row that nobody has is all zeros but for its ``epoch``.

    ``tokens``: int32 [rows, longest], of which ``num_tokens`` are known, ``num_given`` of them when the row was taken.
    ``num_computed``: how many have keys and values once all steps in flight have ended. ``num_pending``: how many tokens those
    steps will make. ``capacity``: tokens that the row's pages hold. ``num_keyed``: full pages that others can find.
    ``limit``: the most tokens to come to.
    ``held``: whether nothing is to be computed for now. ``id`` and ``client``: the owner's, clients by number.
    ``epoch`` changes whenever a row is given back: what a step in flight makes for a former owner is told by it.
    """

    def __init__(self, max_rows: int, longest: int) -> None:
        """``longest``: the most tokens that a request can have."""
        self.tokens = np.zeros((max_rows, longest), np.int32)  # the system gives memory only to what is written
        self.epoch = np.zeros(max_rows, np.int64)
        self.id = np.zeros(max_rows, np.int64)
        self.client = np.zeros(max_rows, np.int64)
        self.num_tokens = np.zeros(max_rows, np.int64)
        self.num_given = np.zeros(max_rows, np.int64)
        self.num_computed = np.zeros(max_rows, np.int64)
        self.num_pending = np.zeros(max_rows, np.int64)
        self.num_keyed = np.zeros(max_rows, np.int64)
        self.capacity = np.zeros(max_rows, np.int64)
        self.limit = np.zeros(max_rows, np.int64)
        self.held = np.zeros(max_rows, np.bool_)
        self._least = np.zeros(max_rows, np.int64)
        self._stops = np.full((max_rows, MOST_STOPS), -1, np.int64)
        self._watched = np.zeros(max_rows, np.bool_)

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
        self._least[row] = request.num_prompt + request.sampling.min_tokens
        self._stops[row] = -1
        if len(stops) <= MOST_STOPS:
            self._stops[row, : len(stops)] = stops
        self.watch(request)

    def watch(self, request: Request) -> None:
        """Look at every token of ``request``, or, once its first is told and unless it asks for more, only at its last one."""
        plain = (
            request.match is None
            and request.answered
            and request.sampling.logprobs is None
            and len(request.terms.stops) <= MOST_STOPS
        )
        self._watched[request.row] = not plain

    def clear(self, row: int) -> None:
        """The row's owner leaves it."""
        self.epoch[row] += 1
        for column in (self.num_tokens, self.num_given, self.num_computed, self.num_pending, self.num_keyed, self.capacity):
            column[row] = 0
        self.limit[row] = 0
        self.held[row] = False

    def known(self, row: int) -> np.ndarray:
        """int32, the row's prompt and answer so far; a view."""
        return self.tokens[row, : self.num_tokens[row]]

    def decoding(self, rows: np.ndarray, left: np.ndarray) -> np.ndarray:
        """bool, which of ``rows`` have only the token ``left`` to compute that was drawn last: the device has it."""
        return (left == 1) & (self.num_computed[rows] >= self.num_given[rows])

    def left(self, rows: np.ndarray) -> np.ndarray:
        """How many tokens each of ``rows`` still has to compute; none while held, or if steps in flight bring it to its limit."""
        total = self.num_tokens[rows] + self.num_pending[rows]
        return np.where((total < self.limit[rows]) & ~self.held[rows], total - self.num_computed[rows], 0)

    def append(self, rows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Each of ``rows`` goes on with a token; bool, for which of them that may be more than just one more token."""
        self.tokens[rows, self.num_tokens[rows]] = tokens
        self.num_tokens[rows] += 1
        length = self.num_tokens[rows]
        stops = (self._stops[rows] == tokens[:, None]).any(1) & (length > self._least[rows])
        return stops | (length == self.limit[rows]) | self._watched[rows]
