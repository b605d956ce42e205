"""``Renderer``: a template's text, rendered in a process of its own. Knows sockets, no Jinja and no conversation.

A helper, one for all templates, forks a process for each that is rendered. What takes too much time or memory ends that process and
costs nobody but those who asked.
"""

import atexit
import json
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from octavo.errors import InvalidRequest

MOST_SECONDS = 1.0  # of CPU time
MOST_BYTES = 256 << 20
MOST_CHARACTERS = 16 << 20
TEXT, REFUSAL = b"T", b"R"
_PATIENCE = 10.0  # for an answer, on a machine that is very busy


class Renderer:
    """Renders one template, as many texts at a time as there are threads that ask. Thread-safe."""

    def __init__(self, source: str) -> None:
        """Nothing runs before ``start`` or the first ``render``."""
        self._source = json.dumps(source).encode()
        self._idle: list[Connection] = []

    def start(self) -> None:
        """Start a process, without waiting for it."""
        self._idle.append(self._process())

    def render(self, variables: dict[str, Any]) -> str:
        """What the template makes of ``variables``. Raises ``InvalidRequest`` if it cannot or takes too much."""
        try:
            told = json.dumps(variables).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequest("The model's chat template can only be told what can be written as JSON.") from error
        try:
            process = self._asked(told)
            if not process.poll(_PATIENCE):
                raise over_limit()
            answer = process.recv_bytes()
        except (EOFError, OSError) as error:
            raise over_limit() from error
        self._idle.append(process)
        text = answer[1:].decode("utf-8", "surrogatepass")
        if answer[:1] == REFUSAL:
            raise InvalidRequest(text)
        return text

    def _asked(self, told: bytes) -> Connection:
        """A process that is at work on it: one that idles, if it has not been ended by somebody since."""
        try:
            process = self._idle.pop()
            process.send_bytes(told)
        except (IndexError, OSError):
            process = self._process()
            process.send_bytes(told)
        return process

    def _process(self) -> Connection:
        process = _helper.connection()
        process.send_bytes(self._source)
        return process


class _Helper:
    """The helper of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._door: socket.socket | None = None

    def connection(self) -> Connection:
        """To a new process, of a new helper if the last one has ended."""
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            try:
                socket.send_fds(self._doorway(), [b"."], [theirs.fileno()])
            except OSError:
                self._door = None
                socket.send_fds(self._doorway(), [b"."], [theirs.fileno()])
        return Connection(ours.detach())

    def close(self) -> None:
        """End the helper; it has nothing to lose."""
        if self._door is not None and self._process is not None:
            self._door.close()
            self._process.wait()
            self._door = self._process = None

    def _doorway(self) -> socket.socket:
        if self._door is None or self._process is None or self._process.poll() is not None:
            self._door, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen([sys.executable, "-m", "octavo.text.template_process"], stdin=theirs.fileno())
        return self._door


def over_limit() -> InvalidRequest:
    """What is told of a template that takes too much."""
    allowed = f"{MOST_SECONDS:g} s, {MOST_BYTES >> 20} MiB of memory or {MOST_CHARACTERS} characters"
    return InvalidRequest(f"The model's chat template takes more than {allowed} for these messages.")


_helper = _Helper()
atexit.register(_helper.close)
