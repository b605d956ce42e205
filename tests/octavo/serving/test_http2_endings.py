"""How a connection ends that has done nothing wrong, and how one does not: retired, slow, silent."""

import asyncio
import struct
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from raw_http2 import ECHO, HANG, LIMITS, Hosted, Peer, headers, hosted, message

from octavo.serving.http2 import connection, frames
from octavo.serving.http2.call import Call
from octavo.serving.http2.faults import Code
from octavo.serving.http2.keepalive import Keepalive
from octavo.serving.http2.server import Server
from octavo.serving.http2.status import Status
from octavo.serving.http2.unary import Unary

WIDE = {frames.INITIAL_WINDOW_SIZE: 2**31 - 1}


@pytest.fixture
def server() -> Iterator[Hosted]:
    with hosted(send_buffer=4096) as one:
        yield one


async def retire(server: Server) -> None:
    for one in list(server._connections):
        one.retire()


def test_who_reads_slowly_still_gets_all_answers_of_a_retired_connection(server: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LAST_CALLS", 0.05)  # this client does not read the ping either
    monkeypatch.setattr(connection, "FAREWELL", 0.05)
    with Peer(server.port, settings=WIDE) as peer:
        peer.widen(0, 2**31 - 1 - 65_535)
        stream = 1
        while not server.unread():
            peer.header(stream, headers(ECHO))
            peer.data(stream, message(bytes(16_000)))
            server.wait_until(lambda last=stream: all(one.last == last for one in server.server._connections))  # type: ignore[misc]
            server.wait_until(lambda: server.open == 0)
            stream += 2
        server.ask(retire)
        server.wait_until(lambda: all(one._last_call is not None for one in server.server._connections))
        time.sleep(0.5)  # ten times as long as a client may take that has done wrong
        assert server.unread()
        ended, last = 0, None
        while (frame := peer.read()) is not None:
            ended += frame.kind == frames.HEADERS and frame.flags & frames.END_STREAM
            last = frame.payload[:4] if frame.kind == frames.GOAWAY else last
        assert last is not None and ended == (struct.unpack(">I", last)[0] + 1) // 2 > 0
    server.wait_until(lambda: server.connections() == 0)


def test_the_last_call_that_is_looked_at_stays_the_last(server: Hosted) -> None:
    with Peer(server.port) as peer:
        peer.header(1, headers(HANG))
        peer.lives()
        server.ask(retire)
        first = peer.read()
        while first is not None and first.kind != frames.PING:
            first = peer.read()
        assert first is not None
        peer.frame(frames.PING, frames.ACK, 0, first.payload)
        told = peer.read()
        assert told is not None and (told.kind, told.payload[:4]) == (frames.GOAWAY, b"\0\0\0\1")
        peer.header(3, headers(HANG))
        peer.frame(frames.PING, 0, 4, bytes(8))
        end = peer.read()
        assert end is not None and (end.kind, end.code, end.payload[:4]) == (frames.GOAWAY, Code.PROTOCOL_ERROR, b"\0\0\0\1")
    server.wait_until(lambda: server.open == 0)


def test_who_comes_while_the_server_closes_is_let_go(server: Hosted) -> None:
    """A handshake may end after the others were told."""
    server.server._host.closing = True
    with Peer(server.port) as peer:
        ping = peer.read()
        while ping is not None and ping.kind != frames.PING:
            ping = peer.read()
        assert ping is not None
        peer.frame(frames.PING, frames.ACK, 0, ping.payload)
        assert peer.goaway()[0] == Code.NO_ERROR


class Watched:
    """A connection as its keepalive sees it."""

    def __init__(self) -> None:
        self.sent, self.heard_at, self.busy, self.congested = 0, 0.0, True, True
        self.gone = asyncio.Event()

    def ping(self) -> None: ...

    def retire(self, grace: float | None) -> None: ...

    def abort(self) -> None:
        self.gone.set()


def test_who_is_not_read_is_not_held_to_be_silent() -> None:
    limits = msgspec.structs.replace(LIMITS, keepalive_time=0.01, keepalive_timeout=0.01)

    async def watch() -> list[bool]:
        watched, seen = Watched(), []
        keepalive = Keepalive(watched, limits, asyncio.get_running_loop())
        await asyncio.sleep(0.3)
        seen.append(watched.gone.is_set())
        watched.congested = False
        async with asyncio.timeout(20):
            await watched.gone.wait()
        keepalive.stop()
        return seen

    assert asyncio.run(watch()) == [False]


def test_a_call_whose_work_somebody_else_has_cancelled_ends(server: Hosted) -> None:
    async def cancelled(_: bytes, __: Call) -> bytes:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.cancel()
        return bytes(await future)

    server.routes["/t.T/Cancelled"] = lambda call: Unary(call, cancelled, lambda: None)
    with Peer(server.port) as peer:
        peer.call(1, method="/t.T/Cancelled")
        assert peer.status(1) == (Status.UNAVAILABLE, "What this call waited for was cancelled within the server.")
        peer.lives()
