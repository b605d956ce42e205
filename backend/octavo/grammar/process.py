"""The grammars' helper: ``python -m octavo.grammar.process``, and what it forks: a process for each grammar.

Its standard input is a socket on which the engine sends a ``GrammarSpec``, and then one end of a connection for each grammar.
"""

import os
import socket
import sys
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle

import msgspec
from llguidance import LLExecutor

from octavo.engine.board import Board
from octavo.engine.cores import usable_cores
from octavo.engine.follower import First, Grammar, Masks, Turn
from octavo.engine.forks import fork_for_each, limit_memory, limited_time
from octavo.engine.grammars import GrammarSpec
from octavo.engine.lifeline import die_with_parent, name_process
from octavo.errors import InvalidRequest
from octavo.grammar.matcher import Matcher, Vocabulary, load_vocabulary
from octavo.text.tokenizer import load_tokenizer

# Of CPU time; the kernel ends whoever takes longer to compile, or for the masks of a step, which may take more for each of them.
MOST_SECONDS = 2.0
MOST_SECONDS_EACH = 0.05
# Beyond what the helper has.
MOST_BYTES = 512 << 20
# That make the masks of a step where they take long: there may be many grammars.
MOST_THREADS = 4
# Cores that the engine and the front ends keep for themselves.
SPARED_CORES = 2


def main() -> None:
    """Load the vocabulary; fork whenever a connection comes; end with the engine."""
    door = socket.socket(fileno=os.dup(0))
    spec = msgspec.json.decode(_line(door), type=GrammarSpec)
    die_with_parent(spec.parent)
    name_process("octavo-grammar")
    vocabulary = load_vocabulary(load_tokenizer(spec.tokenizer), spec.vocab_size, spec.eos_token_ids)
    helper = os.getpid()

    def serve(connection: Connection) -> None:
        die_with_parent(helper)
        follow(connection, vocabulary)

    fork_for_each(door, serve)


def follow(connection: Connection, vocabulary: Vocabulary) -> None:
    """Serve one grammar until the engine closes ``connection``."""
    limit_memory(MOST_BYTES)
    try:
        asked = msgspec.msgpack.decode(connection.recv_bytes(), type=Grammar)
        board = Board(-(-vocabulary.tokens.vocab_size // 32), recv_handle(connection))
        grammar = None
        try:
            with limited_time(MOST_SECONDS):
                grammar = Matcher.compiled(vocabulary, asked)
                first = First(grammar.mask())
        except InvalidRequest as error:
            first = First(b"", str(error))
        connection.send_bytes(msgspec.msgpack.encode(first))
        if grammar is None:
            connection.recv_bytes()  # the engine knows that there is nothing to say
            return
        followed = _Followed(grammar, board)
        while True:
            turn = msgspec.msgpack.decode(connection.recv_bytes(), type=Turn)
            if turn.ids:
                connection.send_bytes(msgspec.msgpack.encode(followed.advance(turn)))
            followed.end(turn.ended)
    except (EOFError, OSError):
        return


class _Followed:
    """The answers that follow one grammar, by number."""

    def __init__(self, grammar: Matcher, board: Board) -> None:
        """``board``: for their masks."""
        self._grammar = grammar
        self._board = board
        self._matchers: dict[int, Matcher] = {}
        self._threads = LLExecutor(min(MOST_THREADS, max(1, usable_cores() - SPARED_CORES)))

    def advance(self, turn: Turn) -> Masks:
        """Go on as ``turn`` says."""
        with limited_time(MOST_SECONDS + MOST_SECONDS_EACH * len(turn.ids)):
            for number in turn.ids:
                if number not in self._matchers:
                    self._matchers[number] = self._grammar.copy()
            matchers = [self._matchers[number] for number in turn.ids]
            masks = self._board.up_to(max(turn.places))
            reasons = Matcher.advance_all(matchers, turn.token_ids, turn.places, masks, self._threads)
        errors = {number: reasons[place] for number, place in zip(turn.ids, turn.places, strict=True) if place in reasons}
        return Masks([number for number in turn.ids if number not in errors], errors)

    def end(self, numbers: list[int]) -> None:
        """These are over."""
        for number in numbers:
            self._matchers.pop(number, None)


def _line(door: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = door.recv(1)
        if not byte:
            sys.exit(0)
        line += byte
    return line


if __name__ == "__main__":
    main()
