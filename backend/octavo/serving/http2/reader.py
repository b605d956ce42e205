"""``FrameReader``: the bytes that a client sends, cut into frames, so many in a turn of the loop. Knows what none of them means."""

import logging
from typing import TYPE_CHECKING

from octavo.serving.http2 import frames
from octavo.serving.http2.faults import Code, ConnectionFault
from octavo.serving.http2.rules import Rules

if TYPE_CHECKING:
    from octavo.serving.http2.connection import Connection

log = logging.getLogger(__name__)
FRAMES_PER_TURN = 256


class FrameReader:
    """Reads for one connection. A turn of the loop takes so many frames; what is over waits for the next one.

    A client that does not read is not read, either: frames that have answers of their own would pile up here.
    """

    def __init__(self, connection: "Connection") -> None:
        """Nothing has come."""
        self._connection = connection
        self._rules = Rules(connection)
        self._rest = b""
        self._greeted = self._put_off = self._paused = False

    def start(self) -> None:
        """The client is connected, and has a while to greet."""
        self._rules.start()

    def feed(self, data: bytes) -> None:
        """``data`` has come."""
        self._rest = self._rest + data if self._rest else data
        if not self._put_off and not self._paused:
            self._read()

    def pause(self) -> None:
        """Read nothing until ``resume``."""
        self._paused = True
        self._connection.pause_reading()

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        if not self._put_off:
            self._go_on()

    def stop(self) -> None:
        """Nothing more will come."""
        self._rules.stop()
        self._rest = b""

    def _read(self) -> None:
        connection = self._connection
        try:
            self._frames()
        except ConnectionFault as fault:
            connection.end(fault.code, str(fault))
        except Exception:
            log.exception("A client's frame has met a bug")
            connection.end(Code.INTERNAL_ERROR, "an internal error")

    def _frames(self) -> None:
        if not self._greeted and not self._greet():
            return
        connection, data, at = self._connection, self._rest, 0
        try:
            for _ in range(FRAMES_PER_TURN):
                if len(data) - at < frames.HEAD_SIZE:
                    return
                high, low, kind, flags, stream = frames.HEAD.unpack_from(data, at)
                size = high << 8 | low
                if size > frames.SMALLEST_MAX_FRAME:
                    raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a frame must have at most 16384 bytes")
                start = at + frames.HEAD_SIZE
                if len(data) < start + size:
                    return
                at = start + size
                self._rules.act(kind, flags, stream & frames.MAX_WINDOW, data[start:at])
                if connection.over or self._paused:
                    return
            self._put_off = True
            connection.pause_reading()
            connection.loop.call_soon(self._go_on)
        finally:
            self._rest = data[at:]

    def _go_on(self) -> None:
        self._put_off = False
        if not self._paused and not self._connection.over:
            self._connection.resume_reading()
            self._read()

    def _greet(self) -> bool:
        """Whether the client speaks HTTP/2. Raises ``ConnectionFault`` once it is clear that it does not."""
        begin = self._rest[: len(frames.PREFACE)]
        if not frames.PREFACE.startswith(begin):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "this port speaks gRPC, over HTTP/2 with prior knowledge")
        if len(begin) < len(frames.PREFACE):
            return False
        self._rest, self._greeted = self._rest[len(begin) :], True
        return True
