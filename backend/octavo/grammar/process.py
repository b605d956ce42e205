"""The grammars' helper: ``python -m octavo.grammar.process``, and what it forks: a process for each grammar.

Its standard input is a socket on which the engine sends a ``GrammarSpec``, and then one end of a connection for each grammar.
"""

import os
import signal
import socket
import sys
from multiprocessing.connection import Connection

import msgspec

from octavo.engine.forks import fork_for_each, limit_memory, limited_time
from octavo.engine.grammars import Grammar, GrammarSpec, Masks, Turn
from octavo.engine.lifeline import die_with_parent, name_process
from octavo.errors import InvalidRequest
from octavo.grammar.matcher import Matcher, Vocabulary, load_vocabulary
from octavo.text.tokenizer import load_tokenizer

# Of CPU time; the kernel ends whoever takes longer.
MOST_SECONDS = 2.0
# Beyond what the helper has.
MOST_BYTES = 512 << 20


def main() -> None:
    """Load the vocabulary; fork whenever a connection comes; end with the engine."""
    door = socket.socket(fileno=os.dup(0))
    spec = msgspec.json.decode(_line(door), type=GrammarSpec)
    die_with_parent(spec.parent)
    name_process("octavo-grammar")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
        with limited_time(MOST_SECONDS):
            grammar: Matcher | str = _compiled(vocabulary, asked)
        matches: dict[int, Matcher] = {}
        while True:
            turn = msgspec.msgpack.decode(connection.recv_bytes(), type=Turn)
            if turn.begun or turn.ids:
                connection.send_bytes(msgspec.msgpack.encode(_answer(turn, grammar, matches)))
            for number in turn.ended:
                matches.pop(number, None)
    except (EOFError, OSError):
        return


def _compiled(vocabulary: Vocabulary, grammar: Grammar) -> Matcher | str:
    """The grammar, or why there is none."""
    try:
        return Matcher.compiled(vocabulary, grammar)
    except InvalidRequest as error:
        return str(error)


def _answer(turn: Turn, grammar: Matcher | str, matches: dict[int, Matcher]) -> Masks:
    if isinstance(grammar, str):
        return Masks([], b"", dict.fromkeys(turn.begun, grammar))
    errors: dict[int, str] = {}
    masks: dict[int, bytes] = {}
    for number in turn.begun:
        matches[number] = grammar.copy()
    for number, token in [*((number, None) for number in turn.begun), *zip(turn.ids, turn.token_ids, strict=True)]:
        match = matches.get(number)
        if match is None:
            continue
        try:
            with limited_time(MOST_SECONDS):
                if token is not None:
                    match.advance(token)
                masks[number] = match.mask()
        except InvalidRequest as error:
            errors[number] = str(error)
    return Masks([*masks], b"".join(masks.values()), errors)


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
