"""The engine's door for front ends: a Unix socket, msgpack frames, one frame per step per front end. Knows no scheduling.

A front end says its name first, ``<process id>.<number>`` (see ``octavo.engine.client``).
"""

import logging
import re
import select
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import msgspec

from octavo.engine.messages import EngineCommand, EngineFrame
from octavo.engine.sockets import Line
from octavo.errors import OctavoError

log = logging.getLogger(__name__)
_NAME, _LONGEST_NAME = re.compile(rb"[0-9]{1,20}\.[0-9]{1,20}"), 41
_BACKLOG = 1024
_READ, _BOTH = select.POLLIN, select.POLLIN | select.POLLOUT


class Watched(Protocol):
    """Something else that an engine hears from."""

    def fileno(self) -> int:
        """A descriptor that can be read from whenever ``pending`` may have become true."""

    def pending(self) -> bool:
        """Whether it has something to say."""


class _Visitor:
    """Who is connected. ``name``: None until it was said."""

    __slots__ = ("line", "name")

    def __init__(self, line: Line) -> None:
        self.line = line
        self.name: bytes | None = None


class Endpoint:
    """Listens at ``path``, in a private directory, and never waits but in ``wait`` and ``close``."""

    def __init__(self, path: str) -> None:
        """Bind; front ends may connect from now on.

        Sends never block and never drop: what a stalled front end has not read is bounded by the requests it has open.
        """
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._listener, _READ)
        self._full = False
        self._visitors: dict[int, _Visitor] = {}  # by descriptor
        self._front_ends: dict[bytes, Line] = {}
        self._gone: list[bytes] = []
        self._watched: list[Watched] = []
        self._encoder = msgspec.msgpack.Encoder()
        self._commands: msgspec.msgpack.Decoder[EngineCommand] = msgspec.msgpack.Decoder(EngineCommand)

    def watch(self, other: Watched) -> None:
        """Let ``wait`` return for this too."""
        self._poll.register(other, _READ)
        self._watched.append(other)

    def wait(self, others: Iterable[int] = (), seconds: float | None = None) -> None:
        """Sleep until there is something to read, here or from one of the file descriptors ``others``, at most for ``seconds``."""
        others = [*others]
        for other in others:
            self._poll.register(other, _READ)
        try:
            if not self._pending():
                self._poll.poll(None if seconds is None else int(1000 * seconds) + 1)
        finally:
            for other in others:
                self._poll.unregister(other)

    def has_something(self) -> bool:
        """Whether ``wait`` would return at once."""
        return self._pending() or bool(self._poll.poll(0))

    def commands(self) -> Iterator[tuple[bytes, EngineCommand]]:
        """What has arrived, as (front end, command); a malformed frame is logged and dropped."""
        if self._full:
            self._poll.register(self._listener, _READ)
        for descriptor, events in self._poll.poll(0):
            if descriptor == self._listener.fileno():
                self._let_in()
            elif (visitor := self._visitors.get(descriptor)) is not None:
                if events & select.POLLOUT:
                    self._flush(visitor)
                if events & ~select.POLLOUT and descriptor in self._visitors:
                    yield from self._hear(visitor)

    def send(self, frames: Mapping[bytes, EngineFrame]) -> list[bytes]:
        """Send every front end its frame; returns the front ends that are no longer there, whether or not they have a frame."""
        for client, frame in frames.items():
            line = self._front_ends.get(client)
            if line is None:
                self._gone.append(client)
                continue
            try:
                line.send(self._encoder.encode(frame))
            except OSError:
                self._part(self._visitors[line.fileno()])
            else:
                if line.stuck:
                    self._poll.modify(line, _BOTH)
        gone, self._gone = self._gone, []
        return gone

    def close(self, seconds: float) -> None:
        """Hang up once all that was sent is on its way, at the latest after ``seconds``."""
        end = time.monotonic() + seconds
        self._listener.close()
        for visitor in self._visitors.values():
            visitor.line.close(max(0.0, end - time.monotonic()))

    def _pending(self) -> bool:
        return any(watched.pending() for watched in self._watched)

    def _let_in(self) -> None:
        try:
            line = Line(self._listener.accept()[0], _LONGEST_NAME)
        except OSError as error:
            # Nobody can be, for want of descriptors as a rule. Who knocks waits, and is no reason to wake until there is another.
            if not self._full:
                log.warning("A front end could not be let in: %s", error)
            self._full = True
            self._poll.unregister(self._listener)
            return
        self._full = False
        self._visitors[line.fileno()] = _Visitor(line)
        self._poll.register(line, _READ)

    def _hear(self, visitor: _Visitor) -> Iterator[tuple[bytes, EngineCommand]]:
        there = visitor.line.read()
        if visitor.name is not None or self._introduced(visitor):
            yield from self._told(visitor)
        if not there and visitor.line.fileno() in self._visitors:
            self._part(visitor)

    def _introduced(self, visitor: _Visitor) -> bool:
        """Whether it has said its name by now. Whoever says anything else first has to leave."""
        try:
            name = visitor.line.take()
        except ValueError:
            name = b""
        if name is None:
            return False
        if not _NAME.fullmatch(name) or name in self._front_ends:
            log.warning("Somebody who did not say a front end's name first was sent away.")
            self._part(visitor)
            return False
        visitor.name, visitor.line.longest = name, None
        self._front_ends[name] = visitor.line
        return True

    def _told(self, visitor: _Visitor) -> Iterator[tuple[bytes, EngineCommand]]:
        assert visitor.name is not None
        while (frame := visitor.line.take()) is not None:
            try:
                yield visitor.name, self._commands.decode(frame)
            except (ValueError, OctavoError) as error:  # of msgspec, or a text that is none
                log.warning("Dropped a malformed frame of front end %r: %s", visitor.name, error)

    def _flush(self, visitor: _Visitor) -> None:
        try:
            visitor.line.flush()
        except OSError:
            self._part(visitor)
        else:
            if not visitor.line.stuck:
                self._poll.modify(visitor.line, _READ)

    def _part(self, visitor: _Visitor) -> None:
        """It has left, or has to."""
        del self._visitors[visitor.line.fileno()]
        self._poll.unregister(visitor.line)
        visitor.line.close()
        if visitor.name is not None:
            del self._front_ends[visitor.name]
            self._gone.append(visitor.name)
