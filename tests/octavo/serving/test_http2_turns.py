"""What one client may do in one turn of the server's loop, whose other turns are everybody else's. Counts work, not seconds."""

import asyncio
import gzip
import threading
import zlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from raw_http2 import TALK, Hosted, Peer, headers, hosted, message

from octavo.errors import InvalidRequest
from octavo.serving.grpc.stream import InferStream
from octavo.serving.http2 import frames, packing
from octavo.serving.http2.server import Server
from octavo.serving.http2.unary import Conversation

MESSAGES_IN_A_FRAME, FRAMES, MAY_BE = 3276, 4, 600
WIDE = {frames.INITIAL_WINDOW_SIZE: 2**31 - 1, frames.MAX_FRAME_SIZE: 65_536}


class Turns:
    """``most``: the most that was counted between two turns of the loop; ``all``: everything that was."""

    def __init__(self) -> None:
        self.most = self.all = self._now = 0
        self._going = True

    async def watch(self, _: Server) -> None:
        self._tick()

    def stop(self) -> None:
        self._going = False

    def count(self, more: int = 1) -> None:
        self.all += more
        self._now += more
        self.most = max(self.most, self._now)

    def _tick(self) -> None:
        self._now = 0
        if self._going:
            asyncio.get_running_loop().call_soon(self._tick)


@pytest.fixture
def server() -> Iterator[Hosted]:
    with hosted() as one:
        yield one


@pytest.fixture
def turns(server: Hosted) -> Iterator[Turns]:
    one = Turns()
    server.ask(one.watch)
    yield one
    one.stop()


def flood(server: Hosted, handler: Callable[[Any], Any], answers: int) -> None:
    """As many empty messages as frames hold; whoever reads is served to the end, and somebody else meanwhile."""
    server.routes["/t.T/Flooded"] = handler
    with Peer(server.port, settings=WIDE) as peer, Peer(server.port) as other:
        peer.widen(0, 2**31 - 1 - 65_535)
        peer.header(1, headers("/t.T/Flooded"))
        whole = frames.frame(frames.DATA, 0, 1, message(b"") * MESSAGES_IN_A_FRAME)
        sender = threading.Thread(target=peer.send, args=(whole * FRAMES,))
        sender.start()
        other.call(1)
        assert other.reply(1) == message(b"hello")
        for _ in range(answers):
            peer.until(frames.DATA, 1)
        sender.join()


def test_messages_of_nothing_are_taken_in_parts(server: Hosted, turns: Turns) -> None:
    def answer(_: bytes) -> bytes:
        turns.count()
        return b""

    flood(server, lambda call: Conversation(call, answer), MESSAGES_IN_A_FRAME * FRAMES)
    assert turns.all == MESSAGES_IN_A_FRAME * FRAMES and turns.most <= MAY_BE


def test_requests_that_are_refused_are_taken_in_parts(server: Hosted, turns: Turns) -> None:
    def begin(*_: object, **__: object) -> None:
        turns.count()
        raise InvalidRequest("There is no such model.")

    service, models = SimpleNamespace(begin=begin, backlog=lambda: None), SimpleNamespace(exiting=False)
    flood(server, lambda call: InferStream(service, models, call, 1024, lambda _: None), MESSAGES_IN_A_FRAME * FRAMES)  # type: ignore[arg-type]
    assert turns.all == MESSAGES_IN_A_FRAME * FRAMES and turns.most <= MAY_BE


def test_long_answers_stop_when_the_socket_is_full(server: Hosted) -> None:
    server.routes["/t.T/Long"] = lambda call: Conversation(call, lambda _: bytes(20_000))
    with Peer(server.port, settings=WIDE) as peer:
        peer.widen(0, 2**31 - 1 - 65_535)
        peer.header(1, headers("/t.T/Long"))
        peer.send(frames.frame(frames.DATA, 0, 1, message(b"") * MESSAGES_IN_A_FRAME))
        server.wait_until(lambda: any(one.congested for one in server.server._connections))
        assert server.unread() < 2**20


def test_streams_of_one_connection_take_turns(server: Hosted) -> None:
    with Peer(server.port, settings=WIDE) as peer:
        peer.widen(0, 2**31 - 1 - 65_535)
        for stream in (1, 3):
            peer.header(stream, headers(TALK))
        peer.send(
            b"".join(frames.frame(frames.DATA, 0, 1, message(b"") * MESSAGES_IN_A_FRAME) for _ in range(FRAMES))
            + frames.frame(frames.DATA, 1, 3, message(b"short"))
        )
        answered = 0
        while (frame := peer.read()) is not None and frame.stream != 3:
            answered += frame.kind == frames.DATA
        assert frame is not None and answered < MESSAGES_IN_A_FRAME * FRAMES // 2


def test_what_is_unpacked_in_the_loop_is_bounded_for_all_calls_together(
    server: Hosted, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops, real = server._thread.ident, zlib.decompressobj

    def spy(window: int) -> SimpleNamespace:
        inflate = real(window)

        def decompress(data: bytes, most: int) -> bytes:
            out = inflate.decompress(data, most)
            if threading.get_ident() == loops:
                turns.count(len(out))
            one.__dict__.update(eof=inflate.eof, unused_data=inflate.unused_data, unconsumed_tail=inflate.unconsumed_tail)
            return out

        one = SimpleNamespace(decompress=decompress, eof=False)
        return one

    monkeypatch.setattr(packing.zlib, "decompressobj", spy)
    data = message(gzip.compress(bytes(200_000)), 1)
    with Peer(server.port, settings=WIDE) as peer:
        peer.widen(0, 2**31 - 1 - 65_535)
        block = [peer.encoder.encode(headers(TALK, grpc_encoding="gzip")) for _ in range(2)]
        calls = range(1, 81, 2)
        peer.send(b"".join(frames.frame(1, 4, n, block[n > 1]) + frames.frame(0, 1, n, data) for n in calls))
        ended = 0
        while ended < len(calls):
            ended += bool(peer.until(frames.HEADERS, flags=frames.END_STREAM))
    assert turns.most <= 2 * packing.AT_ONCE
