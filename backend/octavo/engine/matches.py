"""``Matches``: the requests whose answers follow grammars or hold no bad words, by row. Knows requests and masks, no process."""

from collections.abc import Sequence

import numpy as np

from octavo.engine.follower import Follower
from octavo.engine.grammars import Grammars
from octavo.engine.request import Request
from octavo.engine.rows import RowTable
from octavo.engine.step import Masks, StepInput
from octavo.structured_outputs import Thoughts


class Matches:
    """Begins and ends matches with their requests, and holds rows of ``table`` for whose masks nobody waits."""

    def __init__(self, grammars: Grammars, table: RowTable) -> None:
        """There is none."""
        self.grammars = grammars
        self._table = table
        self._running: dict[int, Request] = {}  # by row
        self._places: dict[int, int] = {}  # on the board, of rows that follow no grammar
        self._open = 0
        self._holding = False

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
        match = request.match
        if match is not None:
            assert match.follower is not None, "it is not ready"
            match.follower.start(match)
        elif request.bad_words:
            self._places[request.row] = self.grammars.board.take()
        else:
            return
        self._running[request.row] = request

    def leave(self, row: int) -> None:
        """Nobody has ``row`` any more."""
        self._running.pop(row, None)
        if row in self._places:
            self.grammars.board.give_back(self._places.pop(row))

    def advance(self, rows: np.ndarray, tokens: np.ndarray) -> None:
        """``rows`` go on with ``tokens``: ask for the masks after them."""
        if not self._open:
            return
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            request = self._running.get(row)
            match = None if request is None else request.match
            if match is not None and match.follower is not None:
                match.follower.advance(match, token)
        self.grammars.flush()

    def failures(self, now: float) -> list[tuple[tuple[bytes, int], str]]:
        """Take in what has come and hold the rows for which no step is to wait; returns whose requests cannot go on, and why."""
        if not self._open:
            return []
        failed = self.grammars.collect()
        banned = self.grammars.banned(now)
        if banned or self._holding:
            self._hold(banned)
        return [(match.owner, error) for match, error in failed]

    def _hold(self, banned: set[Follower]) -> None:
        table, self._holding = self._table, bool(banned)
        for row, request in self._running.items():
            match = request.match
            waits = match is not None and match.follower in banned
            table.held[row] = waits and not (request.ready and table.num_pending[row] == 0)

    def known(self, step: StepInput) -> bool:
        """Whether it is known what may come next in all rows of ``step``, which has been launched."""
        pending = self._table.num_pending
        return all(request.ready and pending[row] == 1 for row, request in self._restricted(step).items())

    def wait(self, step: StepInput) -> list[Request]:
        """Wait a moment until that is known, all steps before it having ended; returns those of whom it still is not."""
        restricted = self._restricted(step).values()
        self.grammars.wait([request.match for request in restricted if request.match is not None])
        return [request for request in restricted if not request.ready]

    def masks(self, step: StepInput) -> Masks:
        """What may come next in those rows of ``step`` that may not say just anything."""
        board, places = self.grammars.board.masks, {}
        for row, request in self._restricted(step).items():
            place = self._places[row] if request.match is None else request.match.place
            assert place is not None
            places[row] = place
            if request.bad_words:
                self._forbid(request, board[place])
        return Masks(places, board)

    def _restricted(self, step: StepInput) -> dict[int, Request]:
        """Whose answers go on by ``step`` with what not just anything may be, by row."""
        running = self._running
        return {row: running[row] for row in step.rows[step.samples].tolist() if row in running} if running else {}

    def _forbid(self, request: Request, mask: np.ndarray) -> None:
        """Take from ``mask`` what would end a bad word."""
        if request.match is None:
            mask.fill(-1)
        answer = self._table.known(request.row)[request.num_prompt :]
        allowed = without(mask, last_tokens(request.bad_words, answer))
        if allowed.any():  # else a grammar leaves nothing else
            mask[:] = allowed


def last_tokens(words: Sequence[Sequence[int]], answer: np.ndarray) -> list[int]:
    """The last token of each of ``words`` whose others ``answer`` (int [n]) ends with; as vLLM bans them."""
    longest = max(map(len, words)) - 1
    end = answer[max(0, len(answer) - longest) :].tolist()
    return [last for *others, last in words if not others or end[-len(others) :] == others]


def without(mask: np.ndarray, token_ids: list[int]) -> np.ndarray:
    """A copy of ``mask``, see ``Launched.draw``, that forbids ``token_ids``."""
    ids = np.array(token_ids, np.int64)
    bits = np.zeros(len(mask), np.uint32)
    np.bitwise_or.at(bits, ids // 32, np.uint32(1) << (ids % 32).astype(np.uint32))
    return mask & ~bits.view(np.int32)
