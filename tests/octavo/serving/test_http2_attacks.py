"""Attacks on HTTP/2 servers, tried with raw sockets: each ends its own connection, or is borne, and costs nobody else."""

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from raw_http2 import ECHO, HANG, LIMITS, TALK, Hosted, Peer, headers, hosted, message

from octavo.serving.http2 import connection, frames, rules
from octavo.serving.http2.faults import Code
from octavo.serving.http2.manners import BURST
from octavo.serving.http2.turn import Turn

FLOOD = 4 * BURST
CANCEL = struct.pack(">I", Code.CANCEL)


@pytest.fixture(scope="module")
def server() -> Iterator[Hosted]:
    with hosted() as one:
        yield one


@pytest.fixture(autouse=True)
def unharmed(server: Hosted) -> Iterator[None]:
    """Whatever a test does, somebody else is served the whole time, and nothing of it stays."""
    with Peer(server.port) as bystander:
        bystander.call(1, b"before")
        assert bystander.reply(1) == message(b"before")
        yield
        bystander.call(3, b"after")
        assert bystander.reply(3) == message(b"after")
    server.wait_until(lambda: server.open == 0 and server.held() == 0)


def rapid_reset(peer: Peer) -> bytes:
    """CVE-2023-44487."""
    blocks = [peer.encoder.encode(headers(HANG)) for _ in range(2)]
    calls = [frames.frame(frames.HEADERS, 5, 1, blocks[0])]
    for stream in range(1, 2 * FLOOD, 2):
        calls += [frames.frame(frames.HEADERS, 4, stream + 2, blocks[1]), frames.rst_stream(stream, Code.CANCEL)]
    return b"".join(calls)


def provoked_resets(peer: Peer) -> bytes:
    """CVE-2025-8671, "MadeYouReset": streams that the server has to end."""
    blocks = [peer.encoder.encode(headers(HANG)) for _ in range(2)]
    calls = [frames.frame(frames.HEADERS, 4, 1, blocks[0])]
    for stream in range(1, 2 * FLOOD, 2):
        calls += [frames.frame(frames.HEADERS, 4, stream + 2, blocks[1]), frames.window_update(stream, 0)]
    return b"".join(calls)


def malformed_calls(peer: Peer) -> bytes:
    block = b"\x84" * 3  # :path three times
    return b"".join(frames.frame(frames.HEADERS, 5, stream, block) for stream in range(1, 2 * FLOOD, 2))


def continuations(peer: Peer) -> bytes:
    """CVE-2024-27316: a header block without an end."""
    more = b"\x00\x01x\x7f\x81\x02" + b"y" * 384
    return frames.frame(frames.HEADERS, 0, 1, more) + frames.frame(frames.CONTINUATION, 0, 1, more) * FLOOD


def empty_continuations(peer: Peer) -> bytes:
    return frames.frame(frames.HEADERS, 0, 1) + frames.frame(frames.CONTINUATION, 0, 1) * FLOOD


def bomb(peer: Peer) -> bytes:
    """A header of 4000 bytes in the table, named by one byte each time."""
    block = b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000 + b"\xbe" * 16_000
    return frames.frame(frames.HEADERS, frames.END_HEADERS, 1, block[:16_384])


def empty_data(peer: Peer) -> bytes:
    """CVE-2019-9518."""
    peer.header(1, headers(TALK))
    return frames.frame(frames.DATA, 0, 1) * FLOOD


def padding(peer: Peer) -> bytes:
    peer.header(1, headers(TALK))
    return frames.frame(frames.DATA, frames.PADDED, 1, b"\xff" + bytes(255)) * FLOOD


def window_updates(peer: Peer) -> bytes:
    peer.header(1, headers(TALK))
    return (frames.window_update(0, 1) + frames.window_update(1, 1)) * FLOOD


def settings(peer: Peer) -> bytes:
    """CVE-2019-9515; each of these changes the windows of all streams, too."""
    for stream in range(1, 201, 2):
        peer.header(stream, headers(TALK))
    return b"".join(frames.settings([(frames.INITIAL_WINDOW_SIZE, size) for size in range(100)]) for _ in range(FLOOD))


def settings_of_many_streams(peer: Peer) -> bytes:
    """Few enough frames, if each of them did not change thousands of windows."""
    for stream in range(1, 4001, 2):
        peer.header(stream, headers(TALK))
    return b"".join(frames.settings([(frames.INITIAL_WINDOW_SIZE, at % 2)]) for at in range(BURST // 2))


def large_headers(peer: Peer) -> bytes:
    """Within the limit for metadata, and long to decode."""
    block = b"\x83\x86\x04\x02/x" + b"\x00\x01x\x7f\x99\x74" + b"y" * 15_000
    return b"".join(frames.frame(frames.HEADERS, 5, stream, block) for stream in range(1, 401, 2))


FLOODS: list[tuple[Callable[[Peer], bytes], Code]] = [
    (rapid_reset, Code.ENHANCE_YOUR_CALM),
    (provoked_resets, Code.ENHANCE_YOUR_CALM),
    (malformed_calls, Code.ENHANCE_YOUR_CALM),
    (continuations, Code.ENHANCE_YOUR_CALM),
    (empty_continuations, Code.ENHANCE_YOUR_CALM),
    (bomb, Code.COMPRESSION_ERROR),
    (large_headers, Code.ENHANCE_YOUR_CALM),
    (empty_data, Code.ENHANCE_YOUR_CALM),
    (padding, Code.ENHANCE_YOUR_CALM),
    (window_updates, Code.ENHANCE_YOUR_CALM),
    (settings, Code.ENHANCE_YOUR_CALM),
    (settings_of_many_streams, Code.ENHANCE_YOUR_CALM),
    (lambda _: frames.frame(frames.PING, 0, 0, bytes(8)) * FLOOD, Code.ENHANCE_YOUR_CALM),
    (lambda _: frames.frame(frames.PRIORITY, 0, 1, b"\0\0\0\3\1") * FLOOD, Code.ENHANCE_YOUR_CALM),
    (lambda _: frames.frame(0xFA, 0, 1, b"x") * FLOOD, Code.ENHANCE_YOUR_CALM),
    (lambda _: frames.frame(frames.GOAWAY, 0, 0, bytes(8)) * FLOOD, Code.ENHANCE_YOUR_CALM),
]


@pytest.mark.parametrize(("flood", "code"), FLOODS, ids=[getattr(flood, "__name__", "") for flood, _ in FLOODS])
def test_a_flood_ends_its_connection(server: Hosted, flood: Callable[[Peer], bytes], code: Code) -> None:
    with Peer(server.port) as peer:
        peer.send(flood(peer))
        assert peer.goaway()[0] == code


def test_pings_are_free_while_something_is_sent_between_them(server: Hosted) -> None:
    """Clients measure with them how much may be on its way."""
    with Peer(server.port) as peer:
        for stream in range(1, 41, 2):
            peer.call(stream)
            peer.reply(stream)
            peer.lives()


def test_calls_that_are_cancelled_now_and_then_are_borne(server: Hosted) -> None:
    with Peer(server.port) as peer:
        for stream in range(1, BURST, 2):
            peer.header(stream, headers(HANG))
            peer.frame(frames.RST_STREAM, 0, stream, CANCEL)
        peer.lives()


def test_a_thousand_streams_and_then_nobody(server: Hosted) -> None:
    with Peer(server.port) as peer:
        for stream in range(1, 2001, 2):
            peer.header(stream, headers(HANG))
            peer.data(stream, message(b"x"))
        server.wait_until(lambda: server.open == 1000)
    server.wait_until(lambda: server.open == 0)


def test_who_asks_without_reading_is_not_listened_to(server: Hosted) -> None:
    """Calls that are refused have answers that wait for no window."""
    with hosted(send_buffer=4096) as small, Peer(small.port) as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.header(1, headers("/no.Such/Method"))
        block, stream = peer.encoder.encode(headers("/no.Such/Method")), 3
        peer.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            while stream < 10**6:
                peer.socket.sendall(b"".join(frames.frame(frames.HEADERS, 5, stream + 2 * at, block) for at in range(500)))
                stream += 1000
        assert small.unread() < 2**18
        peer.socket.settimeout(20)
        peer.until(frames.HEADERS, 1)


@pytest.mark.parametrize("said", [b"", frames.PREFACE[:10], frames.PREFACE])
def test_a_slow_beginning_is_not_waited_for(server: Hosted, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(rules, "PATIENCE", 0.2)
    with Peer(server.port, greet=False) as peer:
        peer.send(said)
        assert peer.goaway() == (Code.ENHANCE_YOUR_CALM, b"too_slow")


async def errors_of_a_handshake_that_fails() -> list[object]:
    """A connection is made before its TLS is shaken hands on, and not told when that fails."""
    loop, seen = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: seen.append(context))
    with ThreadPoolExecutor(1) as threads:
        connection.Connection(connection.Host(LIMITS, lambda _: None, Turn(loop), threads, set(), asyncio.Event()))
        await asyncio.sleep(0.05)
    return seen


def test_who_never_gets_a_connection_is_not_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "PATIENCE", 0.01)
    assert asyncio.run(errors_of_a_handshake_that_fails()) == []


def test_a_slow_header_block_is_not_waited_for(server: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    with Peer(server.port) as peer:
        peer.lives()
        monkeypatch.setattr(rules, "PATIENCE", 0.2)
        peer.frame(frames.HEADERS, 0, 1, b"\x83")
        assert peer.goaway() == (Code.ENHANCE_YOUR_CALM, b"too_slow")


def test_a_call_more_than_there_may_be_is_refused_and_may_be_tried_again(server: Hosted) -> None:
    with hosted(max_streams=2) as narrow, Peer(narrow.port) as peer:
        peer.send(frames.SETTINGS_ACK)
        for stream in (1, 3, 5):
            peer.header(stream, headers(HANG))
        refused = peer.until(frames.RST_STREAM)
        assert (refused.stream, refused.code) == (5, Code.REFUSED_STREAM)
        peer.frame(frames.RST_STREAM, 0, 1, CANCEL)
        peer.call(7)
        assert peer.reply(7) == message(b"hello")
        narrow.wait_until(lambda: narrow.open == 1)


def test_a_busy_connection_does_not_hold_up_another(server: Hosted) -> None:
    """A chunk of a hundred thousand frames is read in parts, with everybody's turns between them."""
    with Peer(server.port) as busy, Peer(server.port) as other:
        busy.header(1, headers(TALK))
        busy.send(frames.frame(frames.DATA, 0, 1, b"") * (BURST // 2) + frames.frame(frames.DATA, 0, 1, message(b"")) * 20_000)
        began = time.monotonic()
        other.call(1)
        assert other.reply(1) == message(b"hello")
        assert time.monotonic() - began < 15


def test_metadata_over_the_limit_is_told_to_the_call_and_the_connection_goes_on(server: Hosted) -> None:
    with Peer(server.port) as peer:
        peer.call(1, x="y" * 17_000)
        assert peer.status(1)[0] == 8
        peer.call(3)
        assert peer.reply(3) == message(b"hello")
        peer.header(5, headers(ECHO, x="y" * 16_000))
        peer.header(7, headers(ECHO))
        peer.data(7, message(b"hello"))
        assert peer.reply(7) == message(b"hello")
