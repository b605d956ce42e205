"""``Inbox``: what a client sends on one stream, cut into messages, unpacked, and handed over in order. Knows no frame."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from octavo.serving.http2.frames import PREFIX
from octavo.serving.http2.packing import IDENTITY, WINDOWS, Budget, Unpacking, too_large
from octavo.serving.http2.status import CallRefused, Status

COMPACT_FROM = 65_536


class Receiver(Protocol):
    """The call that the messages are for."""

    def may_receive(self) -> bool:
        """Whether a message may be handed over in this turn of the loop; if not, ``go_on`` is called when one may."""

    def receive(self, message: bytes) -> None:
        """A message."""

    def receive_end(self) -> None:
        """There was the last of them."""

    def refuse(self, error: CallRefused) -> None:
        """What has come cannot be read."""

    def unpack(self, work: Callable[[], bytes]) -> "asyncio.Future[bytes]":
        """Do ``work`` in a thread."""


class Inbox:
    """Holds what was not handed over: part of a message, and while ``paused`` all that comes.

    ``held``: its bytes. The client may have more on its way only while nothing holds it up: see ``blocked``.
    """

    __slots__ = (
        *("_at", "_buffer", "_closed", "_coding", "_ended", "_handing_over", "_late", "_limit", "_paused", "_receiver"),
        *("_budget", "_unpacking", "_unpacking_size"),
    )

    def __init__(self, receiver: Receiver, limit: int, coding: str, budget: Budget) -> None:
        """Messages have at most ``limit`` bytes; compressed ones are ``coding``, and unpacked in the loop within ``budget``."""
        self._receiver, self._limit, self._coding, self._budget = receiver, limit, coding, budget
        self._buffer: bytes | bytearray = b""
        self._at = 0
        self._paused = self._ended = self._closed = self._handing_over = self._late = False
        self._unpacking: asyncio.Future[bytes] | None = None
        self._unpacking_size = 0

    @property
    def held(self) -> int:
        """Bytes that wait here."""
        return len(self._buffer) - self._at + self._unpacking_size

    @property
    def blocked(self) -> bool:
        """Whether what waits here does so for us and not for the client."""
        return self._paused or self._closed or self._late or self._unpacking is not None

    def feed(self, data: bytes, end: bool) -> None:
        """``data`` has come; ``end``: nothing comes after it."""
        if self._closed:
            return
        if self._at == len(self._buffer):
            self._buffer, self._at = data, 0
        else:
            if isinstance(self._buffer, bytes):
                self._buffer = bytearray(self._buffer)
            self._buffer += data
        self._ended = self._ended or end
        self._hand_over()

    def pause(self) -> None:
        """Hand nothing over until ``resume``."""
        self._paused = True

    def resume(self) -> None:
        """Go on."""
        if self._paused:
            self._paused = False
            self._hand_over()

    def go_on(self) -> None:
        """Another turn of the loop has come."""
        self._late = False
        self._hand_over()

    def close(self) -> None:
        """Nobody wants what is left."""
        self._closed = True
        self._buffer, self._at = b"", 0

    def _hand_over(self) -> None:
        if self._handing_over:
            return
        self._handing_over = True
        try:
            while self._at < len(self._buffer) and not self.blocked:
                if not self._receiver.may_receive():
                    self._late = True
                    break
                message = self._next()
                if message is None:
                    break
                self._receiver.receive(message)
            if self._ended and not self.blocked:
                self._end()
        except CallRefused as error:
            self._receiver.refuse(error)
        finally:
            self._handing_over = False

    def _end(self) -> None:
        if self._at < len(self._buffer):
            raise CallRefused(Status.INTERNAL, "The call ends within a message.")
        self._closed = True
        self._receiver.receive_end()

    def _next(self) -> bytes | None:
        """The next message, if it is whole and need not be unpacked by a thread. Raises ``CallRefused``."""
        if len(self._buffer) - self._at < PREFIX.size:
            return None
        packed, length = PREFIX.unpack_from(self._buffer, self._at)
        if length > self._limit:
            raise too_large(self._limit)
        start = self._at + PREFIX.size
        if len(self._buffer) < start + length:
            self._compact()
            return None
        with memoryview(self._buffer) as view:
            message = bytes(view[start : start + length])
        self._at = start + length
        self._compact()
        return message if not packed else self._unpacked(packed, message)

    def _compact(self) -> None:
        """Let go what was handed over, at once if that is all there is."""
        if self._at == len(self._buffer):
            self._buffer, self._at = b"", 0
        elif self._at > COMPACT_FROM:
            self._buffer, self._at = self._buffer[self._at :], 0

    def _unpacked(self, packed: int, data: bytes) -> bytes | None:
        if packed != 1 or self._coding == IDENTITY:
            raise CallRefused(Status.INTERNAL, "A message is marked as compressed, and its call names no grpc-encoding.")
        unpacking = Unpacking(data, self._coding, self._limit, self._budget)
        if unpacking.message is None:
            self._unpacking = self._receiver.unpack(unpacking.rest)
            self._unpacking_size = unpacking.size
            self._unpacking.add_done_callback(self._take)
        return unpacking.message

    def _take(self, unpacked: "asyncio.Future[bytes]") -> None:
        """A thread has unpacked a message."""
        self._unpacking, self._unpacking_size = None, 0
        if unpacked.cancelled() or self._closed:
            return
        try:
            self._receiver.receive(unpacked.result())
        except CallRefused as error:
            self._receiver.refuse(error)
        else:
            self._hand_over()


def coding_of(name: str | None) -> str:
    """The coding of a call's messages by its grpc-encoding. Raises ``CallRefused``."""
    coding = name or IDENTITY
    if coding != IDENTITY and coding not in WINDOWS:
        raise CallRefused(Status.UNIMPLEMENTED, "Messages may be compressed with gzip or deflate only.")
    return coding
