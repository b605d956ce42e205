"""gRPC's calls over HTTP/2: how they begin, what their messages may be, and every way in which they end."""

import asyncio
import gzip
import struct
import time
import zlib
from collections.abc import Iterator

import pytest
from raw_http2 import ECHO, HANG, TALK, Hosted, Peer, headers, hosted, message

from octavo.serving.http2 import connection, frames, packing
from octavo.serving.http2.call import timeout_of
from octavo.serving.http2.faults import Code
from octavo.serving.http2.headers import status_fields
from octavo.serving.http2.server import Server
from octavo.serving.http2.status import CallRefused, Status

LARGEST = 100_000
COMPRESS = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.fixture(scope="module")
def server() -> Iterator[Hosted]:
    with hosted(max_message=LARGEST) as one:
        yield one


@pytest.fixture
def peer(server: Hosted) -> Iterator[Peer]:
    with Peer(server.port, settings={frames.INITIAL_WINDOW_SIZE: 2**20}) as one:
        one.widen(0, 2**20)
        yield one
        one.lives()
    server.wait_until(lambda: server.open == 0)


def test_a_call_and_its_answer(peer: Peer) -> None:
    peer.call(1)
    fields = peer.fields(1)
    assert fields == {":status": "200", "content-type": "application/grpc", "grpc-accept-encoding": "identity,deflate,gzip"}
    assert peer.until(frames.DATA, 1).payload == message(b"hello")
    assert peer.status(1) == (0, "")


def test_a_message_in_pieces_and_several_in_one(peer: Peer) -> None:
    peer.header(1, headers(TALK))
    both = message(b"one") + message(b"two" * 100)
    for at in range(0, len(both), 7):
        peer.data(1, both[at : at + 7], end=False)
    assert [peer.until(frames.DATA, 1).payload for _ in range(2)] == [message(b"one"), message(b"two" * 100)]
    peer.data(1, both)
    assert peer.reply(1) == both


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({":method": "GET"}, "405"),
        ({":method": "HEAD"}, "405"),
        ({"content-type": "application/json"}, "415"),
        ({"content-type": ""}, "415"),
        ({"content-type": "application/grpc-web+proto"}, "415"),
        ({"content-type": None}, "415"),
    ],
)
def test_what_is_no_grpc_is_told_so_in_http(peer: Peer, fields: dict[str, str | None], status: str) -> None:
    peer.header(1, [(name, fields.get(name, value)) for name, value in headers() if fields.get(name, value) is not None])  # type: ignore[misc]
    assert peer.fields(1) == {":status": status}
    assert peer.until(frames.RST_STREAM, 1).code == Code.NO_ERROR


@pytest.mark.parametrize("kind", ["application/grpc+proto", "application/grpc;x=y"])
def test_any_kind_of_grpc_will_do(peer: Peer, kind: str) -> None:
    peer.call(1, content_type=kind)
    assert peer.reply(1) == message(b"hello")


REFUSED: list[tuple[str, bytes, dict[str, str], Status]] = [
    ("no message", b"", {}, Status.INTERNAL),
    ("two messages", message(b"a") + message(b"b"), {}, Status.INTERNAL),
    ("half a message", message(b"hello")[:7], {}, Status.INTERNAL),
    ("half a prefix", b"\0\0", {}, Status.INTERNAL),
    ("a message that is too large", message(bytes(LARGEST + 1)), {}, Status.RESOURCE_EXHAUSTED),
    ("the prefix of one", struct.pack(">BI", 0, 2**32 - 1), {}, Status.RESOURCE_EXHAUSTED),
    ("compressed, without saying how", message(b"hello", 1), {}, Status.INTERNAL),
    ("an unknown coding", message(b"hello"), {"grpc_encoding": "br"}, Status.UNIMPLEMENTED),
    ("an unknown flag", message(b"hello", 2), {"grpc_encoding": "gzip"}, Status.INTERNAL),
    ("not compressed as it says", message(b"hello", 1), {"grpc_encoding": "gzip"}, Status.INTERNAL),
    ("compressed and cut off", message(gzip.compress(b"hello")[:-9], 1), {"grpc_encoding": "gzip"}, Status.INTERNAL),
    ("compressed, and more", message(zlib.compress(b"hello") + b"x", 1), {"grpc_encoding": "deflate"}, Status.INTERNAL),
    ("large once unpacked", message(gzip.compress(bytes(LARGEST + 1)), 1), {"grpc_encoding": "gzip"}, Status.RESOURCE_EXHAUSTED),
    ("no timeout", message(b"hello"), {"grpc_timeout": "1"}, Status.INTERNAL),
    ("a timeout of nine digits", message(b"hello"), {"grpc_timeout": "123456789S"}, Status.INTERNAL),
]


@pytest.mark.parametrize(("data", "fields", "status"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_refused(peer: Peer, data: bytes, fields: dict[str, str], status: Status) -> None:
    peer.header(1, headers(ECHO, **fields))
    peer.data(1, data)
    code, text = peer.status(1)
    assert code == status and text.endswith(".")


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("size", [0, 5, LARGEST])
def test_a_compressed_message(peer: Peer, coding: str, size: int) -> None:
    data = bytes(size)
    peer.header(1, headers(TALK, grpc_encoding=coding))
    peer.data(1, message(COMPRESS[coding](data), 1) + message(b"plain"))
    assert peer.reply(1) == message(data) + message(b"plain")


def test_what_takes_long_to_unpack_is_unpacked_beside_the_others(server: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "AT_ONCE", 100)
    with Peer(server.port, settings={frames.INITIAL_WINDOW_SIZE: 2**20}) as peer:
        peer.widen(0, 2**20)
        packed = message(gzip.compress(bytes(LARGEST)), 1)
        peer.header(1, headers(TALK, grpc_encoding="gzip"))
        peer.data(1, packed + message(b"after it"))
        assert peer.reply(1) == message(bytes(LARGEST)) + message(b"after it")
        too_large, cut_off = gzip.compress(bytes(LARGEST + 1)), gzip.compress(bytes(LARGEST))[:-10]
        for stream, data, status in ((3, too_large, Status.RESOURCE_EXHAUSTED), (5, cut_off, Status.INTERNAL)):
            peer.header(stream, headers(TALK, grpc_encoding="gzip"))
            peer.data(stream, message(data, 1) + message(b"never seen"))
            assert peer.status(stream)[0] == status
        peer.header(7, headers(TALK, grpc_encoding="gzip"))
        peer.data(7, packed)  # and nobody waits for it
    server.wait_until(lambda: server.open == 0 and server.held() == 0)


def test_answers_are_compressed_for_who_can_read_it() -> None:
    with hosted(compression=6) as packing_server, Peer(packing_server.port) as peer:
        peer.call(1, bytes(5000), grpc_accept_encoding="identity, deflate")
        assert peer.fields(1)["grpc-encoding"] == "deflate"
        body = peer.reply(1)
        assert (body[0], zlib.decompress(body[5:])) == (1, bytes(5000))
        peer.call(3, b"tiny", grpc_accept_encoding="gzip")
        assert peer.reply(3) == message(b"tiny")
        peer.call(5, bytes(5000))
        assert peer.reply(5) == message(bytes(5000))


@pytest.mark.parametrize("timeout", ["0S", "1n", "20m"])
def test_a_deadline(peer: Peer, timeout: str) -> None:
    peer.call(1, method=HANG, grpc_timeout=timeout)
    assert peer.status(1) == (Status.DEADLINE_EXCEEDED, "Deadline Exceeded")


def test_a_deadline_within_a_message_that_the_client_does_not_take(server: Hosted) -> None:
    with Peer(server.port, settings={frames.INITIAL_WINDOW_SIZE: 3}) as peer:
        peer.call(1, grpc_timeout="500m")
        assert peer.until(frames.DATA, 1).payload == b"\0\0\0"
        assert peer.until(frames.RST_STREAM, 1).code == Code.CANCEL


def test_timeouts() -> None:
    assert [timeout_of(text) for text in (None, "2H", "3M", "4S", "5m", "6u", "99999999H")] == [
        *(None, 7200, 180, 4, 0.005),
        *(pytest.approx(6e-6), 99_999_999 * 3600),
    ]
    for text in ("", "1", "S", "-1S", "1s", "1.5S", "123456789n"):
        with pytest.raises(CallRefused):
            timeout_of(text)


def test_a_call_is_cancelled_by_its_client(server: Hosted, peer: Peer) -> None:
    peer.call(1, method=HANG)
    assert server.asked.wait(20)
    peer.frame(frames.RST_STREAM, 0, 1, struct.pack(">I", Code.CANCEL))
    server.wait_until(lambda: server.open == 0)


@pytest.mark.parametrize("path", ["/t.T/None", "/", "*", "/\xff\xfe", "t.T/Echo"])
def test_a_method_that_there_is_not(peer: Peer, path: str) -> None:
    peer.encoder.encode([])
    fields = [(name, value.encode("latin-1")) for name, value in headers(path)]
    peer.frame(frames.HEADERS, frames.END_HEADERS, 1, peer.encoder.encode(fields))
    peer.data(1, message(b"hello"))
    assert peer.status(1) == (Status.UNIMPLEMENTED, "Method not found!")


def test_texts_are_ascii_and_not_too_long() -> None:
    assert b"100%25 d%C3%A9j%C3%A0%0A" in status_fields(3, "100% déjà\n")
    assert len(status_fields(3, "x" * 10**6)) < 5000


def test_a_silent_client_is_pinged_and_may_stay_silent_otherwise() -> None:
    with hosted(keepalive_time=0.05) as watchful, Peer(watchful.port) as peer:
        for _ in range(2):
            peer.frame(frames.PING, frames.ACK, 0, peer.until(frames.PING).payload)
        peer.lives()


def test_a_client_that_does_not_answer_is_gone() -> None:
    with hosted(keepalive_time=0.05, keepalive_timeout=0.1) as watchful, Peer(watchful.port) as peer:
        while peer.read() is not None:
            pass
        watchful.wait_until(lambda: watchful.connections() == 0)


@pytest.mark.parametrize(("limits", "allowed"), [({"pings_without_data": 1}, 1), ({"keepalive_without_calls": False}, 0)])
def test_pings_stop_where_nothing_is_sent_and_where_they_are_not_wanted(limits: dict[str, int], allowed: int) -> None:
    with hosted(keepalive_time=0.02, **limits) as watchful, Peer(watchful.port) as peer:
        for _ in range(allowed):
            peer.frame(frames.PING, frames.ACK, 0, peer.until(frames.PING).payload)
        peer.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            peer.until(frames.PING)


def test_an_old_connection_lets_its_calls_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LAST_CALLS", 20.0)  # this client answers, however slow the machine is
    with hosted(max_age=0.2) as aging, Peer(aging.port) as peer:
        peer.header(1, headers(TALK))
        going = peer.read()
        while going is not None and going.kind != frames.GOAWAY:
            going = peer.read()
        assert going is not None and (going.code, going.payload[:4]) == (Code.NO_ERROR, b"\x7f\xff\xff\xff")
        ping = peer.until(frames.PING)
        peer.call(3, b"on its way")
        assert peer.reply(3) == message(b"on its way")
        peer.frame(frames.PING, frames.ACK, 0, ping.payload)
        last = peer.read()
        assert last is not None and (last.kind, last.code, last.payload[:4]) == (frames.GOAWAY, Code.NO_ERROR, b"\0\0\0\3")
        peer.call(5, b"too late")
        peer.data(1, message(b"still here"))
        assert peer.reply(1) == message(b"still here")
        assert peer.read() is None


def test_and_ends_them_when_its_grace_is_over() -> None:
    with hosted(max_age=0.1, max_age_grace=0.2) as aging, Peer(aging.port) as peer:
        peer.call(1, method=HANG)
        assert peer.until(frames.SETTINGS)
        while (frame := peer.read()) is not None:
            last = frame
        assert (last.kind, last.code, last.payload[8:]) == (frames.GOAWAY, Code.NO_ERROR, b"max_age")
        aging.wait_until(lambda: aging.open == 0)


def test_a_server_that_closes_waits_for_what_it_has_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LAST_CALLS", 0.1)  # one client answers no ping
    with hosted() as ending, Peer(ending.port) as idle, Peer(ending.port) as busy:
        busy.header(1, headers(TALK))
        busy.lives()
        idle.lives()
        closing = asyncio.run_coroutine_threadsafe(ending.server.close(20), ending._loop)
        assert idle.goaway()[0] == Code.NO_ERROR
        while (going := busy.read()) is not None and going.kind != frames.GOAWAY:
            pass
        with pytest.raises(ConnectionRefusedError):
            Peer(ending.port)
        busy.socket.setblocking(True)
        assert not closing.done()
        busy.data(1, message(b"last"))
        end = busy.read()
        while end is not None and end.kind != frames.DATA:
            end = busy.read()
        assert end is not None and end.payload == message(b"last")
        while busy.read() is not None:
            pass
        for peer in (idle, busy):
            peer.socket.close()
        closing.result(20)


def test_a_server_that_has_no_more_time_hangs_up() -> None:
    async def close(server: Server) -> None:
        await server.close(0.1)

    with hosted() as ending, Peer(ending.port) as peer:
        peer.call(1, method=HANG)
        assert ending.asked.wait(20)
        began = time.monotonic()
        ending.ask(close)
        while peer.read() is not None:
            pass
        assert time.monotonic() - began < 10
        ending.wait_until(lambda: ending.open == 0)
