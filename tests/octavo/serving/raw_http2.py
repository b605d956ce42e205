"""A client of the HTTP/2 port that can do everything wrong, and a server in this process with a handler for each kind of call."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import uvloop
from hpack import Decoder, Encoder

from octavo.serving.grpc.limits import connection_limits
from octavo.serving.http2 import frames
from octavo.serving.http2.call import Call, Handler
from octavo.serving.http2.limits import Limits
from octavo.serving.http2.server import Server
from octavo.serving.http2.status import CallRefused, Status
from octavo.serving.http2.unary import Conversation, Unary
from octavo.serving.options import ServeOptions
from octavo.serving.ports import listener

PATIENCE = 20.0
LIMITS = connection_limits(ServeOptions(model_repository=()))
ECHO, TALK, HANG = "/t.T/Echo", "/t.T/Talk", "/t.T/Hang"


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """Of a RST_STREAM or a GOAWAY."""
        return int(struct.unpack(">I", self.payload[:4] if self.kind == frames.RST_STREAM else self.payload[4:8])[0])


class Hosted:
    """A server in a thread with a loop of its own. ``open`` counts the calls whose handlers have not heard of their end.

    ``routes``: who answers further methods, which are not counted.
    """

    def __init__(self, limits: Limits, send_buffer: int | None) -> None:
        self.open = 0
        self.routes: dict[str, Callable[[Call], Handler]] = {}
        self._send_buffer = send_buffer
        self.asked = threading.Event()
        self._limits = limits
        self._ready, self._loop = threading.Event(), uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE)

    def ask(self, work: Callable[["Server"], Awaitable[Any]]) -> Any:
        """Await ``work`` there."""
        return asyncio.run_coroutine_threadsafe(work(self.server), self._loop).result(PATIENCE)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition on the server's loop."""

        async def wait(_: Server) -> None:
            while not holds():
                await asyncio.sleep(0.005)

        self.ask(wait)

    def held(self) -> int:
        """Bytes that wait on all connections."""
        return sum(connection._held for connection in self.server._connections)

    def unread(self) -> int:
        """Bytes that are written and that no socket has taken."""
        return sum(one._transport.get_write_buffer_size() for one in self.server._connections)

    def connections(self) -> int:
        return len(self.server._connections)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._leave())
        self._loop.close()

    async def _leave(self) -> None:
        """Close every socket here. What is left to be collected may close a descriptor that another has been given meanwhile."""
        await self.server.close(0)
        await asyncio.sleep(0)  # for aborted connections to be closed

    async def _listen(self) -> None:
        self.server = Server(self._limits, self._route)
        listening = listener("127.0.0.1", 0)
        if self._send_buffer is not None:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        self.port = listening.getsockname()[1]
        await self.server.listen(listening)

    def _route(self, call: Call) -> Handler:
        if call.method in self.routes:
            return self.routes[call.method](call)
        self.open += 1
        if call.method == ECHO:
            return Unary(call, self._echo, self._ended)
        if call.method == TALK:
            return Talk(call, self._ended)
        if call.method == HANG:
            return Unary(call, self._hang, self._ended)
        self.open -= 1
        raise CallRefused(Status.UNIMPLEMENTED, "Method not found!")

    def _ended(self) -> None:
        self.open -= 1

    async def _echo(self, message: bytes, _: Call) -> bytes:
        return message

    async def _hang(self, _: bytes, __: Call) -> bytes:
        self.asked.set()
        return await asyncio.get_running_loop().create_future()


class Talk(Conversation):
    """Every message back."""

    def __init__(self, call: Call, ended: Callable[[], None]) -> None:
        super().__init__(call, lambda message: message)
        self._ended = ended

    def closed(self) -> None:
        self._ended()


@contextlib.contextmanager
def hosted(send_buffer: int | None = None, **changed: Any) -> Iterator[Hosted]:
    """A server with the default limits, but for those that are ``changed``, and with sockets that hold little if that is asked."""
    one = Hosted(msgspec.structs.replace(LIMITS, **changed), send_buffer)
    try:
        yield one
    finally:
        one.stop()


def headers(method: str = ECHO, **more: str) -> list[tuple[str, str]]:
    """The header of a call; ``more``: fields, with underscores for hyphens."""
    fields = {"content-type": "application/grpc", "te": "trailers"} | {
        name.replace("_", "-"): value for name, value in more.items()
    }
    return [(":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "here"), *fields.items()]


def message(data: bytes, packed: int = 0) -> bytes:
    return struct.pack(">BI", packed, len(data)) + data


class Peer:
    """One connection."""

    def __init__(self, port: int, greet: bool = True, settings: dict[int, int] | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self.encoder, self._decoder = Encoder(), Decoder()
        if greet:
            self.send(frames.PREFACE + frames.settings((settings or {}).items()))

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # it may have hung up already, and what it said is to be read
            self.socket.sendall(data)

    def frame(self, kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> None:
        self.send(frames.frame(kind, flags, stream, payload))

    def header(self, stream: int, fields: list[tuple[str, str]] | None = None, end: bool = False) -> None:
        block = self.encoder.encode(fields or headers())
        self.frame(frames.HEADERS, frames.END_HEADERS | (frames.END_STREAM if end else 0), stream, block)

    def data(self, stream: int, data: bytes, end: bool = True) -> None:
        for at in range(0, len(data) or 1, 16_384):
            last = at + 16_384 >= len(data)
            self.frame(frames.DATA, frames.END_STREAM if end and last else 0, stream, data[at : at + 16_384])

    def widen(self, stream: int, by: int) -> None:
        self.frame(frames.WINDOW_UPDATE, 0, stream, struct.pack(">I", by))

    def call(self, stream: int, data: bytes = b"hello", method: str = ECHO, **more: str) -> None:
        self.header(stream, headers(method, **more))
        self.data(stream, message(data))

    def read(self) -> Frame | None:
        """The next frame; None once the server has hung up."""
        while len(self._buffer) < 9 or len(self._buffer) < 9 + int.from_bytes(self._buffer[:3]):
            try:
                more = self.socket.recv(1 << 16)
            except ConnectionError:
                return None
            if not more:
                return None
            self._buffer += more
        size = int.from_bytes(self._buffer[:3])
        kind, flags, stream = struct.unpack(">BBI", self._buffer[3:9])
        payload, self._buffer = self._buffer[9 : 9 + size], self._buffer[9 + size :]
        return Frame(kind, flags, stream, payload)

    def until(self, kind: int, stream: int | None = None, flags: int = 0) -> Frame:
        """The next frame of that kind. Header blocks on the way are decoded, as they have to be."""
        while True:
            frame = self.read()
            assert frame is not None, "the server has hung up"
            if frame.kind == kind and stream in (None, frame.stream) and frame.flags & flags == flags:
                return frame
            assert frame.kind != frames.GOAWAY, frame

    def fields(self, stream: int) -> dict[str, str]:
        """The next header block of a stream."""
        return dict(self._decoder.decode(self.until(frames.HEADERS, stream).payload))

    def status(self, stream: int) -> tuple[int, str]:
        """How a call ended: its status and text."""
        while True:
            frame = self.until(frames.HEADERS, stream)
            fields = dict(self._decoder.decode(frame.payload))
            if frame.flags & frames.END_STREAM:
                return int(fields.get("grpc-status") or fields[":status"]), fields.get("grpc-message", "")

    def reply(self, stream: int) -> bytes:
        """The whole body of a call that ends well."""
        body = b""
        while True:
            frame = self.read()
            assert frame is not None and frame.kind != frames.GOAWAY, frame
            if frame.stream == stream and frame.kind == frames.DATA:
                body += frame.payload
            elif frame.stream == stream and frame.kind == frames.HEADERS and frame.flags & frames.END_STREAM:
                assert dict(self._decoder.decode(frame.payload))["grpc-status"] == "0"
                return body

    def goaway(self) -> tuple[int, bytes]:
        """Why the server hangs up, which it then must do."""
        while True:
            frame = self.read()
            assert frame is not None, "the server has hung up without a word"
            if frame.kind == frames.GOAWAY:
                break
        while self.read() is not None:
            pass
        return frame.code, frame.payload[8:]

    def lives(self) -> None:
        """The connection still serves."""
        self.frame(frames.PING, 0, 0, b"12345678")
        while self.until(frames.PING, flags=frames.ACK).payload != b"12345678":
            pass
