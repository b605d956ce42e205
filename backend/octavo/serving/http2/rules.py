"""``Rules``: what each frame of a client does to its connection and streams, as RFC 9113 says. Knows no gRPC and no bytes' way."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from octavo.serving.http2 import frames
from octavo.serving.http2.call import Call
from octavo.serving.http2.faults import Code, ConnectionFault, StreamFault
from octavo.serving.http2.headers import HeaderReader, Malformed, check_trailers, request_head
from octavo.serving.http2.settings import read_settings

if TYPE_CHECKING:
    from octavo.serving.http2.connection import Connection

# Seconds for the preface and the first settings, and for a header block to be whole.
PATIENCE = 10.0
# A kilobyte of a header block takes half a millisecond to decode; few calls have as many as this.
USUAL_BLOCK = 8192
# Window updates that are given for nothing, and for each frame that was sent.
FREE_UPDATES, UPDATES_PER_FRAME = 1000, 4


class Block:
    """A header block that is not whole."""

    def __init__(self, stream: int, flags: int, begin: bytes) -> None:
        """It begins with ``begin``."""
        self.stream, self.end_stream = stream, bool(flags & frames.END_STREAM)
        self.parts, self.size = [begin], len(begin)

    def add(self, part: bytes) -> None:
        """Another part of it."""
        self.parts.append(part)
        self.size += len(part)


class Rules:
    """The rules for one connection. ``act`` raises ``ConnectionFault`` for what ends it, and ends streams itself."""

    def __init__(self, connection: "Connection") -> None:
        """Nothing has come."""
        self._connection = connection
        self._headers = HeaderReader(connection.limits.max_metadata)
        self._settled = self._acknowledged = False
        self._block: Block | None = None
        self._updates = 0
        self._patience: asyncio.TimerHandle | None = None
        self._acts: tuple[Callable[[int, int, bytes], None], ...] = (
            *(self._data, self._header, self._priority, self._reset, self._setting, self._push),
            *(self._ping, self._go_away, self._window, self._continuation),
        )

    def start(self) -> None:
        """The client is connected, and has a while to greet."""
        self._wait_for(PATIENCE)

    def stop(self) -> None:
        """Nothing more will come."""
        self._wait_for(None)

    def act(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """A frame has come."""
        if not self._settled and (kind != frames.SETTINGS or flags & frames.ACK):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "the first frame must be SETTINGS")
        if self._block is not None and (kind != frames.CONTINUATION or stream != self._block.stream):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a header block must be ended before anything else")
        if kind >= len(self._acts):
            self._connection.manners.mind()
            return
        try:
            self._acts[kind](flags, stream, payload)
        except StreamFault as fault:
            self._refuse(fault.stream, fault.code)

    def _refuse(self, stream: int, code: Code) -> None:
        """End one stream; a client that makes us do so costs itself as much as by resetting it.

        A stream that was never opened cannot be reset (RFC 9113, 6.4). Raises ``ConnectionFault``.
        """
        connection = self._connection
        if stream % 2 == 0 or stream > connection.last:
            raise ConnectionFault(code, "a frame of a stream that was never opened is wrong")
        connection.manners.mind()
        call = connection.calls.get(stream)
        if call is not None:
            connection.forget(call, code)
        else:
            connection.recent.add(stream, True)
            connection.send(frames.rst_stream(stream, code))

    # One method for each type of frame: flags, stream, payload.

    def _data(self, flags: int, stream: int, payload: bytes) -> None:
        self._check_opened(stream, "DATA")
        connection, size = self._connection, len(payload)
        connection.take(size)
        data, end = unpadded(flags, payload), bool(flags & frames.END_STREAM)
        if not data and not end:
            connection.manners.mind()
        call = connection.calls.get(stream)
        if call is None:
            if not connection.recent.was_reset(stream):
                raise StreamFault(stream, Code.STREAM_CLOSED)
            return
        code = call.data(data, size, end)
        if code is not None:
            raise StreamFault(stream, code)

    def _header(self, flags: int, stream: int, payload: bytes) -> None:
        if stream % 2 == 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a client's streams have odd numbers")
        payload = unpadded(flags, payload)
        if flags & frames.HAS_PRIORITY:
            if len(payload) < 5:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a priority has 5 bytes")
            depends_on = frames.WORD.unpack_from(payload)[0] & frames.MAX_WINDOW
            if depends_on == stream:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "a stream must not depend on itself")
            payload = payload[5:]
        self._block = Block(stream, flags, payload)
        self._check_block(flags)

    def _continuation(self, flags: int, stream: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a CONTINUATION must follow on the beginning of a header block")
        self._connection.manners.mind()
        self._block.add(payload)
        self._check_block(flags)

    def _check_block(self, flags: int) -> None:
        """Act on a header block if it is whole, else have patience with it."""
        block = self._block
        assert block is not None
        if block.size > self._headers.max_block:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a header block is far over the limit for metadata")
        if not flags & frames.END_HEADERS:
            if self._patience is None:
                self._wait_for(PATIENCE)
            return
        self._block = None
        self._wait_for(None)
        self._connection.manners.mind(max(0, block.size - USUAL_BLOCK) // 1024)
        self._whole(block, self._headers.read(b"".join(block.parts)))

    def _whole(self, block: Block, fields: list[tuple[bytes, bytes]]) -> None:
        connection, stream = self._connection, block.stream
        call = connection.calls.get(stream)
        if call is not None:
            self._end_of(call, block, fields)
        elif stream > connection.last:
            connection.last = stream
            self._begin(block, fields)
        elif stream not in connection.recent:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a new stream must have a higher number than those before it")
        elif not connection.recent.was_reset(stream):
            raise ConnectionFault(Code.STREAM_CLOSED, "a stream is over and cannot be opened again")

    def _begin(self, block: Block, fields: list[tuple[bytes, bytes]]) -> None:
        connection, stream = self._connection, block.stream
        if connection.closed_to_calls:
            connection.recent.add(stream, True)
            return
        if connection.full:
            if not self._acknowledged:  # it may not have known how many there may be
                connection.recent.add(stream, True)
                connection.send(frames.rst_stream(stream, Code.REFUSED_STREAM))
                return
            raise StreamFault(stream, Code.REFUSED_STREAM)
        try:
            head = request_head(fields)
        except Malformed:
            raise StreamFault(stream, Code.PROTOCOL_ERROR) from None
        call = Call(connection, stream, head, connection.initial_window)
        code = connection.begin(call, head, block.end_stream)
        if code is not None:
            raise StreamFault(stream, code)

    def _end_of(self, call: Call, block: Block, fields: list[tuple[bytes, bytes]]) -> None:
        """Trailers."""
        try:
            check_trailers(fields)
        except Malformed:
            raise StreamFault(call.number, Code.PROTOCOL_ERROR) from None
        code = call.trailers() if block.end_stream else Code.PROTOCOL_ERROR
        if code is not None:
            raise StreamFault(call.number, code)

    def _priority(self, flags: int, stream: int, payload: bytes) -> None:
        """Priorities are not kept (RFC 9113, 5.3.2)."""
        self._connection.manners.mind()
        if stream == 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a PRIORITY belongs to a stream")
        if len(payload) != 5:
            raise StreamFault(stream, Code.FRAME_SIZE_ERROR)
        if frames.WORD.unpack_from(payload)[0] & frames.MAX_WINDOW == stream:
            raise StreamFault(stream, Code.PROTOCOL_ERROR)

    def _reset(self, flags: int, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a RST_STREAM has 4 bytes")
        self._check_opened(stream, "RST_STREAM")
        self._connection.manners.mind()
        call = self._connection.calls.get(stream)
        if call is not None:
            self._connection.forget(call, None)

    def _setting(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "SETTINGS are the connection's")
        connection = self._connection
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "an acknowledgement is empty")
            self._acknowledged = True
            return
        connection.manners.mind()
        values = read_settings(payload)
        if not self._settled:
            self._settled = True
            self._wait_for(None)
        connection.send(frames.SETTINGS_ACK)
        if frames.MAX_FRAME_SIZE in values:
            connection.change_max_frame(values[frames.MAX_FRAME_SIZE])
        if frames.INITIAL_WINDOW_SIZE in values:
            connection.change_windows(values[frames.INITIAL_WINDOW_SIZE])

    def _push(self, flags: int, stream: int, payload: bytes) -> None:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a client promises nothing")

    def _ping(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a PING is the connection's")
        if len(payload) != 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a PING has 8 bytes")
        if not flags & frames.ACK:
            self._connection.keepalive.pinged()
            self._connection.send(frames.frame(frames.PING, frames.ACK, 0, payload))
        else:
            self._connection.answered(payload)

    def _go_away(self, flags: int, stream: int, payload: bytes) -> None:
        """The client is about to leave, and has no more to say than that."""
        self._connection.manners.mind()
        if stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a GOAWAY is the connection's")
        if len(payload) < 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a GOAWAY has at least 8 bytes")

    def _window(self, flags: int, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a WINDOW_UPDATE has 4 bytes")
        connection = self._connection
        self._updates += 1
        if self._updates > FREE_UPDATES + UPDATES_PER_FRAME * connection.sent:
            connection.manners.mind()
        by = frames.WORD.unpack(payload)[0] & frames.MAX_WINDOW
        if not stream:
            if not by:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "a window is widened by at least one byte")
            connection.widened(by)
            return
        self._check_opened(stream, "WINDOW_UPDATE")
        if not by:
            raise StreamFault(stream, Code.PROTOCOL_ERROR)
        call = connection.calls.get(stream)
        if call is not None and not call.widened(by):
            raise StreamFault(stream, Code.FLOW_CONTROL_ERROR)

    def _check_opened(self, stream: int, what: str) -> None:
        """A frame that only a stream can have which was opened."""
        if stream == 0 or stream % 2 == 0 or stream > self._connection.last:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"a {what} belongs to a stream that was opened")

    def _wait_for(self, seconds: float | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if seconds is not None:
            self._patience = self._connection.loop.call_later(seconds, self._lose_patience)

    def _lose_patience(self) -> None:
        self._patience = None
        self._connection.end(Code.ENHANCE_YOUR_CALM, "too_slow")


def unpadded(flags: int, payload: bytes) -> bytes:
    """What a frame has without its padding. Raises ``ConnectionFault``."""
    if not flags & frames.PADDED:
        return payload
    if not payload:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a padded frame says how long its padding is")
    if payload[0] >= len(payload):
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a frame's padding must be shorter than the frame")
    return payload[1 : len(payload) - payload[0]]
