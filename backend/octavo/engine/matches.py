"""``Matches``: the requests whose answers follow grammars or hold no bad words, by row. Knows requests and masks, no process."""

from collections.abc import Sequence

import numpy as np

from octavo.engine.grammars import Grammars
from octavo.engine.request import Request
from octavo.engine.rows import RowTable
from octavo.structured_outputs import Thoughts

# Seconds that a step waits for masks; a row whose mask comes later sits out.
PATIENCE = 0.02


class Matches:
    """Begins and ends matches with their requests, and holds rows of ``table`` while nobody knows what may come next."""

    def __init__(self, grammars: Grammars, table: RowTable, vocab_size: int) -> None:
        """There is none."""
        self.grammars = grammars
        self._table = table
        self._anything = np.full(-(-vocab_size // 32), -1, np.int32)
        self._running: dict[int, Request] = {}  # by row
        self._open = 0

    def begin(self, request: Request, key: tuple[bytes, int], thoughts: Thoughts | None) -> None:
        """``request`` has come; ``thoughts`` may stand before what follows its grammar."""
        if request.sampling.structured_outputs is not None:
            request.match = self.grammars.begin(key, request.sampling.structured_outputs, thoughts)
            self._open += 1

    def end(self, request: Request) -> None:
        """``request`` is over."""
        if request.match is not None:
            self.grammars.end(request.match)
            self._open -= 1

    def start(self, request: Request) -> None:
        """``request`` has taken its row."""
        if request.match is not None or request.bad_words:
            self._running[request.row] = request

    def leave(self, row: int) -> None:
        """Nobody has ``row`` any more."""
        self._running.pop(row, None)

    def unknown(self) -> bool:
        """Whether a step in flight makes a token without which no mask can be asked for."""
        return bool(self._running) and bool(self._table.num_pending[[*self._running]].any())

    def ask(self) -> None:
        """Ask for the masks after the tokens that have come."""
        if self._open:
            self.grammars.flush()

    def failures(self) -> list[tuple[tuple[bytes, int], str]]:
        """Wait a moment for masks and hold the rows without; returns whose requests cannot go on, and why."""
        if not self._open:
            return []
        self.ask()
        awaited = [request.match for request in self._running.values() if request.match is not None]
        failed = self.grammars.collect(awaited, PATIENCE)
        for row, request in self._running.items():
            self._table.held[row] = not request.ready
        return [(match.owner, error) for match, error in failed]

    def masks(self, rows: np.ndarray, samples: np.ndarray) -> dict[int, np.ndarray]:
        """What the next token may be of those of ``rows`` that yield one (bool ``samples``) and may not say just anything."""
        if not self._running:
            return {}
        return {row: self._mask(self._running[row]) for row in rows[samples].tolist() if row in self._running}

    def _mask(self, request: Request) -> np.ndarray:
        mask = self._anything if request.match is None or request.match.mask is None else request.match.mask
        if not request.bad_words:
            return mask
        answer = self._table.known(request.row)[request.num_prompt :]
        allowed = without(mask, last_tokens(request.bad_words, answer))
        return allowed if allowed.any() else mask  # where a grammar leaves nothing else


def last_tokens(words: Sequence[Sequence[int]], answer: np.ndarray) -> list[int]:
    """The last token of each of ``words`` whose others ``answer`` (int [n]) ends with; as vLLM bans them."""
    longest = max(map(len, words)) - 1
    end = answer[max(0, len(answer) - longest) :].tolist()
    return [last for *others, last in words if not others or end[-len(others) :] == others]


def without(mask: np.ndarray, token_ids: list[int]) -> np.ndarray:
    """A copy of ``mask``, see ``StepInput.masks``, that forbids ``token_ids``."""
    ids = np.array(token_ids, np.int64)
    bits = np.zeros(len(mask), np.uint32)
    np.bitwise_or.at(bits, ids // 32, np.uint32(1) << (ids % 32).astype(np.uint32))
    return mask & ~bits.view(np.int32)
