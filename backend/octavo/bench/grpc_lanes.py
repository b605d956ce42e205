"""``GrpcLane``: a stream of ``ModelStreamInfer`` over HTTP/2 of our own, so light that what is measured is the server.

While the clock runs a read takes one look at the clock, and of its frames no more is done than the protocol asks for. Messages
are cut out and read once it has stopped.
"""

import asyncio
import time
from collections.abc import Iterator
from typing import cast

from hpack import Encoder, NeverIndexedHeaderTuple

from octavo.bench.lanes import Job, Lane, Message, infer_request
from octavo.serving.http2 import frames
from octavo.serving.http2.headers import HeaderReader
from octavo.serving.http2.settings import read_settings
from octavo.wire import pb

STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
LAST = b"triton_final_response\x12\x02\x08\x01"
UNLIMITED = 2**32 - 1
WHOLE = frames.END_HEADERS, frames.END_HEADERS | frames.END_STREAM
# Both windows are as large as can be at once; the connection's is filled up again when half of it is gone.
HELLO = (
    frames.PREFACE
    + frames.settings([(frames.ENABLE_PUSH, 0), (frames.INITIAL_WINDOW_SIZE, frames.MAX_WINDOW)])
    + frames.window_update(0, frames.MAX_WINDOW - frames.DEFAULT_WINDOW)
)


class GrpcConnection(asyncio.Protocol):
    """One connection, whose streams stay open for as long as it does: whatever ends one is an error of all of them.

    ``settings``: what the server has said of itself, once it has.
    """

    def __init__(self, address: str) -> None:
        """Nothing is sent before ``connect``."""
        self.settings: asyncio.Future[dict[int, int]] = asyncio.get_running_loop().create_future()
        self._address, self._lanes = address, dict[int, GrpcLane]()
        self._window = self._initial_window = frames.DEFAULT_WINDOW
        self._headers, self._rest, self._taken = HeaderReader(frames.SMALLEST_MAX_FRAME), b"", 0
        self._error: Exception | None = None
        self._header = _header(address)

    async def connect(self) -> None:
        """Greet the server, and wait until it has greeted."""
        host, port = self._address.rsplit(":", 1)
        await asyncio.get_running_loop().create_connection(lambda: self, host, int(port))
        await self.settings

    def open(self, lane: "GrpcLane") -> int:
        """Open a stream, whose data goes to ``lane``; its number. Raises ``RuntimeError`` if the server takes no more."""
        limit = self.settings.result().get(frames.MAX_CONCURRENT_STREAMS, UNLIMITED)
        if len(self._lanes) >= limit:
            raise RuntimeError(f"The server takes at most {limit} streams on one connection.")
        stream = 2 * len(self._lanes) + 1
        self._lanes[stream] = lane
        lane.window = self._initial_window
        self._transport.write(frames.frame(frames.HEADERS, frames.END_HEADERS, stream, self._header))
        return stream

    def send(self, lane: "GrpcLane", message: bytes) -> None:
        """Send a message. Raises ``RuntimeError`` if the server is gone or does not take it at once, for nothing waits."""
        if self._error is not None:
            raise self._error
        size = len(message)
        if size > min(self._window, lane.window, frames.SMALLEST_MAX_FRAME):
            raise RuntimeError(f"The server takes {self._window} and {lane.window} bytes now; a request has {size}.")
        self._window -= size
        lane.window -= size
        self._transport.write(frames.frame(frames.DATA, 0, lane.stream, message))

    def close(self) -> None:
        """Hang up."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(HELLO)

    def data_received(self, data: bytes) -> None:
        """Some frames, whole or not."""
        now = time.monotonic()
        data, at = self._rest + data if self._rest else data, 0
        try:
            while len(data) - at >= frames.HEAD_SIZE:
                high, low, kind, flags, stream = frames.HEAD.unpack_from(data, at)
                start = at + frames.HEAD_SIZE
                end = start + (high << 8 | low)
                if end > len(data):
                    break
                if kind == frames.DATA and not flags:
                    self._taken += end - start
                    self._lanes[stream].take(now, data[start:end])
                else:
                    self._act(kind, flags, stream, data[start:end])
                at = end
            self._give_back()
        except Exception as error:
            self._fail(error)
        self._rest = data[at:]

    def connection_lost(self, error: Exception | None) -> None:
        """The server ended it, or this process did."""
        self._fail(RuntimeError("The server closed a connection."))

    def _act(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """What is no plain data. Raises ``RuntimeError`` for all that a server has no reason to send."""
        match kind:
            case frames.HEADERS if flags in WHOLE:
                fields = dict(self._headers.read(payload))
                if flags & frames.END_STREAM or fields[b":status"] != b"200":
                    raise RuntimeError(f"The server ended a stream: {fields}")
            case frames.SETTINGS:
                if not flags & frames.ACK:
                    self._settle(read_settings(payload))
            case frames.PING:
                if not flags & frames.ACK:
                    self._transport.write(frames.frame(frames.PING, frames.ACK, 0, payload))
            case frames.WINDOW_UPDATE:
                increment = frames.WORD.unpack(payload)[0]
                if stream:
                    self._lanes[stream].window += increment
                else:
                    self._window += increment
            case _:
                about = f"type {kind} with flags {flags} on stream {stream}: {payload[:200]!r}"
                raise RuntimeError(f"The server sent a frame that no benchmark needs, of {about}")

    def _settle(self, values: dict[int, int]) -> None:
        self._transport.write(frames.SETTINGS_ACK)
        if frames.INITIAL_WINDOW_SIZE in values:
            by = values[frames.INITIAL_WINDOW_SIZE] - self._initial_window
            self._initial_window += by
            for lane in self._lanes.values():
                lane.window += by
        if not self.settings.done():
            self.settings.set_result(values)

    def _give_back(self) -> None:
        if self._taken > frames.MAX_WINDOW // 2:
            self._transport.write(frames.window_update(0, self._taken))
            self._taken = 0

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._transport.abort()
        if not self.settings.done():
            self.settings.set_exception(error)
        for lane in self._lanes.values():
            lane.fail(error)


class GrpcLane(Lane):
    """One stream of ``ModelStreamInfer``. ``window``: what the server takes of it."""

    def __init__(self, number: int, job: Job, connection: GrpcConnection) -> None:
        """Open it."""
        super().__init__(number)
        self.window = 0
        self._connection = connection
        request = infer_request(job, self.prompt, self.id)
        self._message = frames.PREFIX.pack(0, len(request)) + request
        self._parts: list[Message] = []
        self._before = b""
        self._ended: asyncio.Future[None] | None = None
        self.stream = connection.open(self)

    async def ask(self) -> None:
        """One request, to its last message."""
        ended = self._ended = asyncio.get_running_loop().create_future()
        self._connection.send(self, self._message)
        await ended

    def close(self) -> None:
        """End it, and with it the others of its connection."""
        self._connection.close()

    def take(self, at: float, data: bytes) -> None:
        """A frame's data has come. The mark of a last message may lie on the border of two."""
        self._parts.append(Message(at, data))
        if LAST not in self._before + data:
            self._before = data
            return
        self._before = b""
        if self._ended is None or self._ended.done():
            raise RuntimeError(f"An answer to {self.id} ended that nobody waits for.")
        self._ended.set_result(None)

    def fail(self, error: Exception) -> None:
        """The stream is over."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(error)

    def answers(self) -> list[list[Message]]:
        """The messages of each request that ended. Raises ``RuntimeError`` if one is compressed."""
        answers: list[list[Message]] = [[]]
        for message in self._messages():
            answers[-1].append(message)
            if LAST in message.data:
                answers.append([])
        return answers[:-1]

    def text_of(self, message: Message) -> bytes:
        """The text of a response, which is its only tensor."""
        parsed = pb.ModelStreamInferResponse.FromString(message.data)
        response = parsed.infer_response
        if parsed.error_message or response.id != self.id or len(response.raw_output_contents) != 1:
            raise RuntimeError(f"Not an answer to {self.id}: {str(parsed)[:500]}")
        return response.raw_output_contents[0][4:]

    def _messages(self) -> Iterator[Message]:
        """Each came when the last of its bytes did."""
        held = b""
        for at, data in self._parts:
            held += data
            while len(held) >= frames.PREFIX.size:
                packed, length = frames.PREFIX.unpack_from(held)
                if packed:
                    raise RuntimeError(f"A message to {self.id} is compressed, though that was not asked for.")
                end = frames.PREFIX.size + length
                if len(held) < end:
                    break
                yield Message(at, held[frames.PREFIX.size : end])
                held = held[end:]


def _header(address: str) -> bytes:
    """A call's header block, the same for all, as it leaves nothing in the server's table."""
    fields = {":method": "POST", ":scheme": "http", ":path": STREAM_INFER, ":authority": address}
    fields |= {"te": "trailers", "content-type": "application/grpc", "user-agent": "octavo-bench"}
    return Encoder().encode([NeverIndexedHeaderTuple(name, value) for name, value in fields.items()])
