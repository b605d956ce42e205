"""``Call``: one gRPC call of a client, and ``Handler``, what answers it. Knows its own stream only."""

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Protocol

from octavo.serving.http2 import frames
from octavo.serving.http2.faults import Code
from octavo.serving.http2.flow import Intake
from octavo.serving.http2.headers import RESPONSE, Head, http_status, literal, status_fields
from octavo.serving.http2.inbox import Inbox, coding_of
from octavo.serving.http2.limits import Limits
from octavo.serving.http2.outbox import Outbox, Way
from octavo.serving.http2.packing import IDENTITY, WINDOWS, pack
from octavo.serving.http2.share import Share
from octavo.serving.http2.status import CallRefused, Status
from octavo.serving.http2.turn import Turn

log = logging.getLogger(__name__)
STREAM_WINDOW = 2**20
# A client may take this long for the last bytes of a call that is over; then it is reset.
LAST_WORDS = 60.0
GRPC = "application/grpc"
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class Handler(Protocol):
    """Answers one call. Everything is called in the event loop and must not wait."""

    def receive(self, message: bytes) -> None:
        """The client has sent a message."""

    def receive_end(self) -> None:
        """The client will send no more of them."""

    def writable(self) -> None:
        """The call may be written to again."""

    def closed(self) -> None:
        """The call is over: its status is out, the client has ended it or is gone, or its time is up."""


class Carrier(Way, Protocol):
    """The connection of a call. ``share``: what its calls may take of a turn of the loop, which is ``turn``."""

    limits: Limits
    loop: asyncio.AbstractEventLoop
    turn: Turn
    share: Share

    def unpack(self, work: Callable[[], bytes]) -> "asyncio.Future[bytes]":
        """Do ``work`` in a thread."""

    def hold(self, more: int) -> bool:
        """``more`` bytes wait here for a call; whether that many may."""

    def widen(self, stream: int, increment: int) -> None:
        """The client may send that many bytes more on the stream."""

    def forget(self, call: "Call", code: Code | None) -> None:
        """The call is over; its stream is reset with ``code`` unless that is None."""


class Call:
    """A call from its header to its end. ``method`` is its path. A handler writes only while ``ready``.

    ``at_end_of_turn`` calls what it is given once this turn of the event loop is over, before what was written leaves.
    """

    __slots__ = (
        *("_announced", "_carrier", "_closed", "_deadline", "_ended", "_fields", "_handler", "_held", "_inbox"),
        *("_intake", "_kept", "_outbox", "_packing", "_patience", "_received_end", "_unread", "at_end_of_turn"),
        *("method", "number"),
    )

    def __init__(self, carrier: Carrier, number: int, head: Head, window: int) -> None:
        """Stream ``number``, whose client takes ``window`` bytes for a start; nothing is done before ``begin``."""
        self.number, self.method = number, head.path
        self._carrier, self._fields = carrier, head.fields
        self.at_end_of_turn = carrier.turn.work
        self._intake, self._held, self._kept = Intake(STREAM_WINDOW), 0, 0
        self._inbox: Inbox | None = None
        self._outbox = Outbox(carrier, number, window, self._drained)
        self._handler: Handler | None = None
        self._packing = IDENTITY
        self._announced = self._ended = self._closed = self._received_end = False
        self._deadline: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._unread = int(length) if (length := head.fields.get("content-length")) is not None else None

    def begin(self, head: Head, end: bool, route: Callable[["Call"], Handler]) -> Code | None:
        """Check the header, which may be all there is, and have ``route`` say who answers. The code of what is wrong with that."""
        self._received_end = end
        if head.method != "POST":
            self._answer_http(405)
        elif not is_grpc(head.fields.get("content-type", "")):
            self._answer_http(415)
        else:
            try:
                self._prepare(head)
                self._handler = route(self)
            except CallRefused as error:
                self.refuse(error)
        return self._take(b"", 0) if end and not self._closed else None

    @property
    def ready(self) -> bool:
        """Whether what was written is on its way, so that more may be. If not, ``writable`` is called once it is."""
        return self._outbox.waiting is None and not self._carrier.congested

    def header(self, name: str) -> str | None:
        """A field of the call's metadata, by its name in small letters."""
        return self._fields.get(name)

    def write(self, message: bytes) -> None:
        """Send a message; to be called while ``ready`` only, and not after ``end``."""
        if not self._announced:
            self._announce()
        if self._packing != IDENTITY:
            packed = pack(message, self._packing, self._carrier.limits.compression)
            if len(packed) < len(message):
                self._outbox.message(packed, 1)
                return
        self._outbox.message(message, 0)

    def end(self, status: Status = Status.OK, text: str = "") -> None:
        """Send the status, after what was written."""
        if not self._ended:
            self._end((b"" if self._announced else RESPONSE) + status_fields(status, text))

    def pause(self) -> None:
        """Hand no further message over until ``resume``; the client may soon send none."""
        assert self._inbox is not None
        self._inbox.pause()

    def resume(self) -> None:
        """Go on."""
        if self._inbox is not None and not self._ended:
            self._inbox.resume()
            self._settle(0)

    def keep(self, size: int) -> None:
        """The handler keeps ``size`` bytes of what it has received, and has not begun to answer: they count as not read."""
        self._kept = size

    # What the connection tells of its stream.

    def data(self, data: bytes, size: int, end: bool) -> Code | None:
        """A frame of ``size`` bytes with its padding has come; the code of what is wrong with it."""
        if self._received_end:
            return Code.STREAM_CLOSED
        if not self._intake.take(size):
            return Code.FLOW_CONTROL_ERROR
        self._received_end = end
        return self._take(data, size)

    def _take(self, data: bytes, size: int) -> Code | None:
        end = self._received_end
        if self._unread is not None:
            self._unread -= len(data)
            if self._unread < 0 or (end and self._unread):
                return Code.PROTOCOL_ERROR
        if self._inbox is not None and not self._ended:
            self._inbox.feed(data, end)
        self._settle(size)
        return None

    def trailers(self) -> Code | None:
        """The client's trailers have come: the end of what it sends. The code of what is wrong with that."""
        return Code.STREAM_CLOSED if self._received_end else self.data(b"", 0, True)

    def widened(self, by: int) -> bool:
        """The client takes ``by`` bytes more, or fewer; whether there is such a window."""
        return self._outbox.widen(by)

    def go_on(self) -> None:
        """The connection can take more."""
        if self._outbox.waiting is not None:
            self._outbox.push()
        elif self._handler is not None and not self._ended:
            self._handler.writable()

    def read_on(self) -> None:
        """Another turn of the loop has come, with room for more messages."""
        if self._inbox is not None and not self._ended:
            self._inbox.go_on()
            self._settle(0)

    def close(self) -> None:
        """The stream is over, and nothing more can be sent on it."""
        if self._closed:
            return
        self._closed = self._ended = True
        for timer in (self._deadline, self._patience):
            if timer is not None:
                timer.cancel()
        if self._inbox is not None:
            self._inbox.close()
        self._outbox.close()
        self._kept = 0
        self._settle(0)
        if self._handler is not None:
            self._handler.closed()

    # What the inbox tells.

    def may_receive(self) -> bool:
        """Whether a message may be handed over in this turn of the loop."""
        return self._carrier.share.take(self.number)

    def receive(self, message: bytes) -> None:
        """A message."""
        assert self._handler is not None
        self._handler.receive(message)

    def receive_end(self) -> None:
        """There was the last of them."""
        assert self._handler is not None
        self._handler.receive_end()

    def refuse(self, error: CallRefused) -> None:
        """The call ends with ``error``."""
        self.end(error.status, str(error))

    def unpack(self, work: Callable[[], bytes]) -> "asyncio.Future[bytes]":
        """Do ``work`` in a thread."""
        unpacked = self._carrier.unpack(work)
        unpacked.add_done_callback(lambda _: self._carrier.loop.call_soon(self._settle, 0))
        return unpacked

    def _prepare(self, head: Head) -> None:
        limits = self._carrier.limits
        if head.size > limits.max_metadata:
            text = f"The metadata of a call must have at most {limits.max_metadata} bytes, got {head.size}."
            raise CallRefused(Status.RESOURCE_EXHAUSTED, text)
        coding = coding_of(head.fields.get("grpc-encoding"))
        self._inbox = Inbox(self, limits.max_message, coding, self._carrier.turn)
        if limits.compression:
            accepted = head.fields.get("grpc-accept-encoding", "").replace(" ", "").split(",")
            self._packing = next((name for name in WINDOWS if name in accepted), IDENTITY)
        seconds = timeout_of(head.fields.get("grpc-timeout"))
        if seconds is not None:
            self._deadline = self._carrier.loop.call_later(seconds, self._expire)

    def _announce(self) -> None:
        self._announced = True
        block = RESPONSE
        if self._packing != IDENTITY:
            block += literal(b"grpc-encoding", self._packing.encode())
        self._carrier.send(frames.frame(frames.HEADERS, frames.END_HEADERS, self.number, block))

    def _answer_http(self, status: int) -> None:
        if not self._ended:
            self._end(http_status(status))

    def _end(self, block: bytes) -> None:
        self._ended = True
        flags = frames.END_HEADERS | frames.END_STREAM
        self._outbox.last(frames.frame(frames.HEADERS, flags, self.number, block))
        if self._outbox.waiting is None:
            self._finish()
        else:
            if self._inbox is not None:
                self._inbox.close()
                self._settle(0)
            self._patience = self._carrier.loop.call_later(LAST_WORDS, self._carrier.forget, self, Code.CANCEL)

    def _drained(self) -> None:
        """All that was written is on its way."""
        if self._ended:
            self._finish()
        elif self._handler is not None:
            self._handler.writable()

    def _finish(self) -> None:
        """A client that goes on sending is told that nobody listens."""
        self._carrier.forget(self, None if self._received_end else Code.NO_ERROR)

    def _expire(self) -> None:
        """The deadline has passed. A message that is half sent cannot be followed by a status."""
        if self._outbox.waiting is None:
            self.end(Status.DEADLINE_EXCEEDED, "Deadline Exceeded")
        else:
            self._carrier.forget(self, Code.CANCEL)

    def _settle(self, size: int) -> None:
        """Account for ``size`` bytes that have come, and for what is held: the client may send more unless it waits for us."""
        held = self._kept + self._inbox.held if self._inbox is not None else 0
        more, self._held = held - self._held, held
        if not self._carrier.hold(more):
            self.refuse(CallRefused(Status.RESOURCE_EXHAUSTED, "Too many bytes of unread messages wait on this connection."))
        blocked = self._inbox is not None and self._inbox.blocked
        increment = self._intake.owe(size) if blocked or self._received_end else self._intake.give_back(size)
        if increment and not self._closed:
            self._carrier.widen(self.number, increment)


def is_grpc(content_type: str) -> bool:
    """Whether it is gRPC itself, whatever its messages are, and no relative of it."""
    return content_type == GRPC or content_type.startswith((f"{GRPC}+", f"{GRPC};"))


def timeout_of(text: str | None) -> float | None:
    """Seconds of a grpc-timeout. Raises ``CallRefused``."""
    if text is None:
        return None
    found = _TIMEOUT.fullmatch(text)
    if found is None:
        raise CallRefused(Status.INTERNAL, "The grpc-timeout must be at most eight digits and a unit.")
    return int(found[1]) * _SECONDS[found[2]]
