"""``Grammars``: what each constrained request may say next, asked of processes beside the engine. Knows sockets, no grammar.

A helper loads the vocabulary when the first grammar comes, and forks a process for each grammar. A grammar that takes too long or
too much memory thus costs nobody but those who sent it, and the engine only reads masks.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Iterable
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

import msgspec
import numpy as np

from octavo.config import EngineConfig
from octavo.engine.helper import Helper, Job
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


class Turn(msgspec.Struct, frozen=True, array_like=True):
    """Engine to a grammar's process: ``begun`` matches are new, each of ``ids`` goes on with a token, ``ended`` are over."""

    begun: list[int] = []
    ids: list[int] = []
    token_ids: list[int] = []
    ended: list[int] = []


class Masks(msgspec.Struct, frozen=True, array_like=True):
    """The answer to a ``Turn``: a mask for each of ``ids``, end to end; ``errors`` says which matches failed, and why."""

    ids: list[int]
    masks: bytes
    errors: dict[int, str] = {}


class Grammar(NamedTuple):
    """What answers have to be, and what may come before; equal for those that one process can serve."""

    kind: str
    text: str
    thoughts: Thoughts | None = None


class Match:
    """One answer that follows a grammar. ``mask``: int32, what may come next, None until that is known."""

    def __init__(self, number: int, owner: tuple[bytes, int], grammar: Grammar) -> None:
        """``owner``: whose answer it is."""
        self.number = number
        self.owner = owner
        self.grammar = grammar
        self.mask: np.ndarray | None = None


class _Process:
    """A grammar's process, seen from the engine."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.matches: dict[int, Match] = {}
        self.turn = Turn([], [], [], [])
        self.second = False
        self.owed = 0


class Grammars:
    """Follows matches. Nothing runs before the first ``begin``; a helper that has died is started again by the next one."""

    def __init__(self, config: EngineConfig, info: EngineInfo) -> None:
        """For the engine of ``config``."""
        spec = GrammarSpec(config.tokenizer, info.vocab_size, info.eos_token_ids, os.getpid())
        self._helper = Helper("octavo.grammar.process", msgspec.json.encode(spec) + b"\n")
        self._words = -(-info.vocab_size // 32)
        self._processes: dict[Grammar, _Process] = {}  # least recently begun first
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

    def advance(self, match: Match, token: int) -> None:
        """The answer goes on with ``token``."""
        match.mask = None
        process = self._processes.get(match.grammar)
        if process is not None and match.number in process.matches:
            process.turn.ids.append(match.number)
            process.turn.token_ids.append(token)

    def end(self, match: Match) -> None:
        """The answer is over."""
        process = self._processes.get(match.grammar)
        if process is not None and process.matches.pop(match.number, None) is not None:
            process.turn.ended.append(match.number)
        elif match in self._delayed:
            self._delayed.remove(match)

    def flush(self) -> None:
        """Ask for all masks that are missing."""
        while self._delayed and self._place(self._delayed[0]):
            self._delayed.popleft()
        for process in list(self._processes.values()):
            self._tell(process)

    def _tell(self, process: _Process) -> None:
        turn = process.turn
        if turn.begun or turn.ids or turn.ended:
            process.turn = Turn([], [], [], [])
            process.owed += bool(turn.begun or turn.ids)
            try:
                process.job.connection.send_bytes(_encode(turn))
            except OSError:
                self._lost(process)

    def sockets(self) -> list[int]:
        """File descriptors that can be read once there is an answer."""
        return [process.job.connection.fileno() for process in self._processes.values()]

    def collect(self, awaited: Iterable[Match] = (), seconds: float = 0.0) -> list[tuple[Match, str]]:
        """Take in what has come, and wait at most ``seconds`` for those ``awaited``; returns the matches that failed, and why."""
        processes = {process.job.connection: process for process in self._processes.values()}
        if processes:
            self._take(processes, 0.0)
            end = time.monotonic() + seconds
            for match in awaited:
                process = self._processes.get(match.grammar)
                while match.mask is None and process is not None and process.owed:
                    if not self._take({process.job.connection: process}, max(0.0, end - time.monotonic())):
                        break
        failed, self._failed = self._failed, []
        return failed

    def _take(self, processes: dict[Connection, _Process], seconds: float) -> bool:
        """Whether anything came."""
        ready = wait([*processes], seconds)
        for connection in ready:
            assert isinstance(connection, Connection)
            process = processes[connection]
            try:
                answer = _masks.decode(process.job.receive())
            except (OSError, EOFError, msgspec.MsgspecError):
                self._lost(process)
                continue
            process.owed -= 1
            masks = np.frombuffer(answer.masks, np.int32).reshape(len(answer.ids), self._words)
            for number, mask in zip(answer.ids, masks, strict=True):
                if number in process.matches:
                    process.matches[number].mask = mask
            for number, error in answer.errors.items():
                if number in process.matches:
                    self._failed.append((process.matches[number], error))
        return bool(ready)

    def _place(self, match: Match) -> bool:
        """Give ``match`` to its grammar's process, if there may be one."""
        process = self._processes.pop(match.grammar, None)
        if process is None:
            if len(self._processes) >= MOST_PROCESSES and not self._evict():
                return False
            process = self._start(match.grammar)
        self._processes[match.grammar] = process
        process.matches[match.number] = match
        process.turn.begun.append(match.number)
        return True

    def _evict(self) -> bool:
        for grammar, process in self._processes.items():
            if not process.matches:
                process.job.connection.close()
                del self._processes[grammar]
                return True
        return False

    def _start(self, grammar: Grammar) -> _Process:
        process = _Process(self._helper.job())
        try:
            process.job.connection.send_bytes(_encode(grammar))
        except OSError:
            log.warning("The process that compiles grammars has ended early")  # its first answer will be that it is lost
        return process

    def _lost(self, process: _Process) -> None:
        """The process has ended, by a limit or a signal."""
        grammar = next((grammar for grammar, other in self._processes.items() if other is process), None)
        if grammar is None:
            return
        del self._processes[grammar]
        process.job.connection.close()
        process.owed = 0
        if process.job.never_was() and not process.second:
            self._begin_again(grammar, process.matches)
            return
        when = "be followed any further" if process.job.answered else "be compiled"
        error = f"structured_outputs.{grammar.kind} could not {when} within the limits of time and memory; make it simpler."
        log.warning("The process of a grammar has ended before its %d answers", len(process.matches))
        self._failed += [(match, error) for match in process.matches.values()]

    def _begin_again(self, grammar: Grammar, matches: dict[int, Match]) -> None:
        """Who waits for a grammar must not pay for a helper that was killed, unless helpers end again and again."""
        process = self._processes[grammar] = self._start(grammar)
        process.second = True
        process.matches = matches
        process.turn.begun.extend(matches)
        self._tell(process)


_encode = msgspec.msgpack.Encoder().encode
_masks: msgspec.msgpack.Decoder[Masks] = msgspec.msgpack.Decoder(Masks)
