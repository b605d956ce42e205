"""``Follower``: a grammar's process, seen from the engine, and the messages between them. Knows no grammar."""

import logging
from math import inf
from multiprocessing.reduction import send_handle
from typing import NamedTuple

import msgspec
import numpy as np

from octavo.engine.board import Board
from octavo.engine.helper import Job
from octavo.structured_outputs import Thoughts

log = logging.getLogger(__name__)

# Seconds that a step waits for masks at no charge, and those that steps may wait beyond that: they come back as a part of all time,
# so that whoever shares a batch with a slow grammar loses that part at most, and the free time of each step.
_FREE = 0.002
_MOST_CREDIT = 0.048
_BACK = 0.2
# A process that was waited for in vain is not waited for before it has said what it owed then. If that happens again, also not for
# so many seconds, and for twice as long each time after.
_BAN = 1.0
# After so many times as long it is the first time again.
_FORGIVEN = 10.0


class Grammar(NamedTuple):
    """What answers have to be, and what may come before; equal for those that one process can serve."""

    kind: str
    text: str
    thoughts: Thoughts | None = None


class First(msgspec.Struct, frozen=True, array_like=True):
    """What the process says first: the mask with which every answer begins, or the ``error`` for which there can be none."""

    mask: bytes
    error: str | None = None


class Turn(msgspec.Struct, frozen=True, array_like=True):
    """Engine to process: each of ``ids`` goes on with a token, and its mask belongs at ``places``; ``ended`` are over."""

    ids: list[int] = []
    places: list[int] = []
    token_ids: list[int] = []
    ended: list[int] = []


class Masks(msgspec.Struct, frozen=True, array_like=True):
    """The answer to a ``Turn`` that has ``ids``: their masks are where they belong, but for those with ``errors``."""

    ids: list[int]
    errors: dict[int, str] = {}


class Match:
    """One answer that follows a grammar. ``ready``: whether it is known what may come next.

    ``place``: where on the board that is, once it has started: many more may wait for their turn than there is memory for masks.
    """

    __slots__ = ("follower", "grammar", "number", "owner", "place", "ready")

    def __init__(self, number: int, owner: tuple[bytes, int], grammar: Grammar) -> None:
        """``owner``: whose answer it is."""
        self.number = number
        self.owner = owner
        self.grammar = grammar
        self.follower: Follower | None = None
        self.place: int | None = None
        self.ready = False


class Follower:
    """Follows the ``matches`` of one grammar, by number.

    A process that owes an answer is told nothing: what it does not read would hold up whoever writes it.

    ``owed``: whether an answer is to come. ``failed``: matches that cannot go on, and why, for the owner of this to empty.
    ``second``: it was started because another ended before it had begun.
    """

    def __init__(self, job: Job, grammar: Grammar, board: Board, second: bool = False) -> None:
        """Have ``job`` begin with ``grammar``, and write its masks on ``board``."""
        self.job = job
        self.grammar = grammar
        self.matches: dict[int, Match] = {}
        self.failed: list[tuple[Match, str]] = []
        self.owed = True
        self.second = second
        self._board = board
        self._next: dict[Match, int] = {}  # tokens that are to be told
        self._ended: list[Match] = []  # whose end is to be told
        self._first: First | None = None
        self._gone = False
        self._credit, self._credit_at = _MOST_CREDIT, -inf
        self._overdue = False  # its answer was waited for in vain
        self._banned_until = self._forgiven_at = -inf
        self._ban = 0.0
        try:
            job.connection.send_bytes(_encode(grammar))
            send_handle(job.connection, board.file, 0)
        except OSError:
            log.warning("The process that compiles grammars has ended early")  # its first answer will be that it is lost

    def begin(self, match: Match) -> None:
        """Follow ``match`` too."""
        match.follower = self
        self.matches[match.number] = match
        if self._first is not None:
            self._open(match, self._first)

    def start(self, match: Match) -> None:
        """``match``, which is ready, has its turn; perhaps not for the first time."""
        if match.place is None:
            assert self._first is not None
            match.place = self._board.take()
            self._board.masks[match.place] = np.frombuffer(self._first.mask, np.int32)

    def advance(self, match: Match, token: int) -> None:
        """``match`` goes on with ``token``."""
        match.ready = False
        self._next[match] = token

    def end(self, match: Match) -> None:
        """``match`` is over."""
        if self.matches.pop(match.number, None) is not None:
            self._next.pop(match, None)
            if match.place is not None:  # else the process has never heard of it
                self._ended.append(match)
            if self._gone:
                self._forget_ended()

    def tell(self) -> None:
        """Send what there is to tell, if the process owes nothing. Raises ``OSError`` if it has ended."""
        if self.owed or not (self._next or self._ended):
            return
        ids = [match.number for match in self._next]
        places = [match.place for match in self._next if match.place is not None]
        turn = Turn(ids, places, [*self._next.values()], [match.number for match in self._ended])
        self._forget_ended()  # nothing is written before this turn is heard, so others may have their places
        self._next = {}
        self.owed = bool(ids)
        self.job.connection.send_bytes(_encode(turn))

    def hear(self) -> None:
        """Take one answer, and tell what has waited for it.

        Raises ``OSError``, ``EOFError`` or ``ValueError`` if the process has ended, or is of no use.
        """
        said = self.job.receive()
        self.owed = self._overdue = False
        if self._first is None:
            self._first = _first.decode(said)
            for match in [*self.matches.values()]:
                self._open(match, self._first)
            return
        answer = _masks.decode(said)
        for match in filter(None, map(self.matches.get, answer.ids)):
            match.ready = True
        for number, error in answer.errors.items():
            if number in self.matches:
                self._fail(self.matches[number], error)
        self.tell()

    def leave(self) -> None:
        """Its process writes nothing any more, and is told nothing."""
        self._gone = True
        self._forget_ended()

    def patience(self, now: float) -> float:
        """Seconds that a step which begins to wait for it now is to wait."""
        self._credit, self._credit_at = min(_MOST_CREDIT, self._credit + _BACK * (now - self._credit_at)), now
        return _FREE + self._credit

    def waited(self, seconds: float) -> None:
        """So long a step has waited for it, since ``patience`` was asked."""
        self._credit = max(0.0, self._credit - max(0.0, seconds - _FREE))  # we may have been stopped meanwhile

    def banned(self, now: float) -> bool:
        """Whether it is not to be waited for."""
        return self._overdue or now < self._banned_until

    def ban(self, now: float) -> None:
        """It was waited for in vain."""
        self._overdue = self.owed
        self._ban = max(_BAN, 2 * self._ban) if now < self._forgiven_at else 0.0
        self._banned_until = now + self._ban
        self._forgiven_at = self._banned_until + _FORGIVEN * max(_BAN, self._ban)

    def _open(self, match: Match, first: First) -> None:
        if first.error is None:
            match.ready = True
        else:
            self._fail(match, first.error)

    def _fail(self, match: Match, error: str) -> None:
        self.end(match)
        self.failed.append((match, error))

    def _forget_ended(self) -> None:
        for match in self._ended:
            if match.place is not None:
                self._board.give_back(match.place)
                match.place = None
        self._ended = []


_encode = msgspec.msgpack.Encoder().encode
_first: msgspec.msgpack.Decoder[First] = msgspec.msgpack.Decoder(First)
_masks: msgspec.msgpack.Decoder[Masks] = msgspec.msgpack.Decoder(Masks)
