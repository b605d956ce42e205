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

_FEW_PLACES = 16
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
    """One answer that follows a grammar. ``mask``: int32, what may come next, None until that is known.

    ``place``: where on the board its masks are written, once it has a token.
    """

    __slots__ = ("follower", "grammar", "mask", "number", "owner", "place")

    def __init__(self, number: int, owner: tuple[bytes, int], grammar: Grammar) -> None:
        """``owner``: whose answer it is."""
        self.number = number
        self.owner = owner
        self.grammar = grammar
        self.follower: Follower | None = None
        self.mask: np.ndarray | None = None
        self.place: int | None = None


class Follower:
    """Follows the ``matches`` of one grammar, by number.

    A process that owes an answer is told nothing: what it does not read would hold up whoever writes it.

    ``owed``: whether an answer is to come. ``failed``: matches that cannot go on, and why, for the owner of this to empty.
    ``second``: it was started because another ended before it had begun.
    """

    def __init__(self, job: Job, grammar: Grammar, words: int, second: bool = False) -> None:
        """Have ``job`` begin with ``grammar``, for masks of ``words`` int32."""
        self.job = job
        self.grammar = grammar
        self.matches: dict[int, Match] = {}
        self.failed: list[tuple[Match, str]] = []
        self.owed = True
        self.second = second
        self._board = Board(words)
        self._places = 0
        self._free: list[int] = []
        self._next: dict[Match, int] = {}  # tokens that are to be told
        self._ended: list[Match] = []  # whose end is to be told
        self._first: First | None = None
        self._overdue = False  # its answer was waited for in vain
        self._banned_until = self._forgiven_at = -inf
        self._ban = 0.0
        try:
            job.connection.send_bytes(_encode(grammar))
            send_handle(job.connection, self._board.file, 0)
        except OSError:
            log.warning("The process that compiles grammars has ended early")  # its first answer will be that it is lost

    def begin(self, match: Match) -> None:
        """Follow ``match`` too."""
        match.follower = self
        self.matches[match.number] = match
        if self._first is not None:
            self._open(match, self._first)

    def advance(self, match: Match, token: int) -> None:
        """``match`` goes on with ``token``."""
        match.mask = None
        self._next[match] = token

    def end(self, match: Match) -> None:
        """``match`` is over."""
        if self.matches.pop(match.number, None) is not None:
            self._next.pop(match, None)
            if match.place is not None:
                self._ended.append(match)

    def tell(self) -> None:
        """Send what there is to tell, if the process owes nothing. Raises ``OSError`` if it has ended."""
        if self.owed or not (self._next or self._ended):
            return
        ids = [match.number for match in self._next]
        places = [self._place(match) for match in self._next]
        turn = Turn(ids, places, [*self._next.values()], [match.number for match in self._ended])
        self._free += [match.place for match in self._ended if match.place is not None]  # whoever gets them is told of later
        self._next, self._ended = {}, []
        self.owed = bool(ids)
        self.job.connection.send_bytes(_encode(turn))

    def hear(self) -> None:
        """Take one answer, and tell what has waited for it.

        Raises ``OSError``, ``EOFError`` or ``MsgspecError`` if the process has ended, or is of no use.
        """
        said = self.job.receive()
        self.owed = self._overdue = False
        if self._first is None:
            self._first = _first.decode(said)
            for match in [*self.matches.values()]:
                self._open(match, self._first)
            return
        answer, masks = _masks.decode(said), self._board.up_to(self._places - 1)
        for match in filter(None, map(self.matches.get, answer.ids)):
            if match.place is not None:
                match.mask = masks[match.place]
        for number, error in answer.errors.items():
            if number in self.matches:
                self._fail(self.matches[number], error)
        self.tell()

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
            match.mask = np.frombuffer(first.mask, np.int32)
        else:
            self._fail(match, first.error)

    def _fail(self, match: Match, error: str) -> None:
        self.end(match)
        self.failed.append((match, error))

    def _place(self, match: Match) -> int:
        if match.place is None:
            if not self._free:
                more = max(_FEW_PLACES, self._places)
                self._board.grow(self._places + more)
                self._free += reversed(range(self._places, self._places + more))
                self._places += more
            match.place = self._free.pop()
        return match.place


_encode = msgspec.msgpack.Encoder().encode
_first: msgspec.msgpack.Decoder[First] = msgspec.msgpack.Decoder(First)
_masks: msgspec.msgpack.Decoder[Masks] = msgspec.msgpack.Decoder(Masks)
