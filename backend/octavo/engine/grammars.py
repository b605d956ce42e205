"""``Grammars``: what each constrained request may say next, asked of processes beside the engine. Knows sockets, no grammar.

A helper loads the vocabulary when the first grammar comes, and forks a process for each grammar. A grammar that takes too long or
too much memory thus costs nobody but those who sent it, and the engine only reads masks.
"""

import logging
import os
import select
import time
from collections import deque
from collections.abc import Sequence

import msgspec

from octavo.config import EngineConfig
from octavo.engine.board import Board
from octavo.engine.follower import Follower, Grammar, Match
from octavo.engine.helper import Helper
from octavo.engine.messages import EngineInfo
from octavo.structured_outputs import StructuredOutputsParams, Thoughts

log = logging.getLogger(__name__)

# Processes at once; grammars beyond them wait until one is free.
MOST_PROCESSES = 64


class GrammarSpec(msgspec.Struct, frozen=True):
    """What the helper is started with: whose vocabulary, how many logits there are, which tokens end an answer."""

    tokenizer: str
    vocab_size: int
    eos_token_ids: list[int]
    parent: int


class Grammars:
    """Follows matches. Nothing runs before the first ``begin``; a helper that has died is started again by the next one.

    ``board``: where their masks are.
    """

    def __init__(self, config: EngineConfig, info: EngineInfo) -> None:
        """For the engine of ``config``."""
        spec = GrammarSpec(config.tokenizer, info.vocab_size, info.eos_token_ids, os.getpid())
        self._helper = Helper("octavo.grammar.process", msgspec.json.encode(spec) + b"\n")
        self.board = Board(-(-info.vocab_size // 32))
        self._followers: dict[Grammar, Follower] = {}  # least recently begun first
        self._heard = select.epoll()
        self._by_file: dict[int, Follower] = {}
        self._delayed: deque[Match] = deque()
        self._failed: list[tuple[Match, str]] = []
        self._number = 0

    def begin(self, owner: tuple[bytes, int], wish: StructuredOutputsParams, thoughts: Thoughts | None = None) -> Match:
        """A new answer; its mask comes when the grammar is compiled."""
        self._number += 1
        match = Match(self._number, owner, Grammar(*wish.spelled(), thoughts))
        if not self._place(match):
            self._delayed.append(match)
        return match

    def end(self, match: Match) -> None:
        """The answer is over."""
        if match.follower is not None:
            match.follower.end(match)
        elif match in self._delayed:
            self._delayed.remove(match)

    def flush(self) -> None:
        """Ask for all masks that are missing."""
        for follower in list(self._followers.values()):
            try:
                follower.tell()
            except OSError:
                self._lost(follower)
        while self._delayed and self._place(self._delayed[0]):
            self._delayed.popleft()

    def socket(self) -> int:
        """A file descriptor that can be read once there is an answer."""
        return self._heard.fileno()

    def collect(self) -> list[tuple[Match, str]]:
        """Take in what has come, and ask for what is missing; returns the matches that failed since the last call, and why."""
        self._take(0.0)
        self.flush()
        for follower in self._followers.values():
            if follower.failed:
                self._failed += follower.failed
                follower.failed = []
        failed, self._failed = self._failed, []
        return failed

    def wait(self, matches: Sequence[Match]) -> None:
        """Take in what comes until the masks of ``matches`` are there; whoever uses up the patience with it is banned."""
        begin = time.monotonic()
        ends = {follower: begin + follower.patience(begin) for follower in _late(matches)}
        while ends:
            self._take(max(0.0, min(ends.values()) - time.monotonic()))
            now, late = time.monotonic(), _late(matches)
            for follower, end in [*ends.items()]:
                if follower not in late or now >= end:
                    follower.waited(now - begin)
                    del ends[follower]
                    if follower in late:
                        follower.ban(now)

    def banned(self, now: float) -> set[Follower]:
        """Those for whom no step is to wait now."""
        return {follower for follower in self._followers.values() if follower.banned(now)}

    def _take(self, seconds: float) -> None:
        """Take in what has come, or else the first to come within ``seconds``."""
        for file, _ in self._heard.poll(seconds):
            follower = self._by_file[file]
            try:
                follower.hear()
            except (OSError, EOFError, ValueError):
                self._lost(follower)

    def _place(self, match: Match) -> bool:
        """Give ``match`` to its grammar's process, if there may be one."""
        follower = self._followers.pop(match.grammar, None)
        if follower is None:
            if len(self._followers) >= MOST_PROCESSES and not self._evict():
                return False
            follower = self._start(match.grammar)
        self._followers[match.grammar] = follower
        follower.begin(match)
        return True

    def _evict(self) -> bool:
        # Whoever owes an answer is at work, or yet to begin, whether or not anybody waits for it.
        idle = (follower for follower in self._followers.values() if not follower.matches and not follower.owed)
        follower = next(idle, None)
        if follower is None:
            return False
        self._leave(follower)
        return True

    def _start(self, grammar: Grammar, second: bool = False) -> Follower:
        follower = Follower(self._helper.job(), grammar, self.board, second)
        file = follower.job.connection.fileno()
        self._by_file[file] = follower
        self._heard.register(file, select.EPOLLIN)
        return follower

    def _leave(self, follower: Follower) -> None:
        del self._followers[follower.grammar]
        file = follower.job.connection.fileno()
        self._heard.unregister(file)
        del self._by_file[file]
        follower.job.connection.close()
        follower.leave()

    def _lost(self, follower: Follower) -> None:
        """The process has ended, by a limit or a signal."""
        self._leave(follower)
        follower.owed = False
        self._failed += follower.failed
        if not follower.matches:
            return
        if follower.job.never_was() and not follower.second:
            # Who waits for a grammar must not pay for a helper that was killed, unless helpers end again and again.
            other = self._followers[follower.grammar] = self._start(follower.grammar, second=True)
            for match in follower.matches.values():
                other.begin(match)
            return
        when = "be followed any further" if follower.job.answered else "be compiled"
        error = (
            f"structured_outputs.{follower.grammar.kind} could not {when} within the limits of time and memory; make it simpler."
        )
        log.warning("The process of a grammar has ended before its %d answers", len(follower.matches))
        self._failed += [(match, error) for match in follower.matches.values()]


def _late(matches: Sequence[Match]) -> set[Follower]:
    """Those who are at work on what may come next in one of ``matches``."""
    return {match.follower for match in matches if not match.ready and match.follower and match.follower.owed}
