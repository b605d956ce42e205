"""What RFC 9113 says of frames, one mistake after the other: what ends a connection, what ends a stream, and what ends nothing."""

import struct
from collections.abc import Callable, Iterator

import pytest
from raw_http2 import HANG, TALK, Hosted, Peer, headers, hosted, message

from octavo.serving.http2 import frames
from octavo.serving.http2.faults import Code

Act = Callable[[Peer], None]


@pytest.fixture(scope="module")
def server() -> Iterator[Hosted]:
    with hosted() as one:
        yield one


def send(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> Act:
    return lambda peer: peer.frame(kind, flags, stream, payload)


def after_a_call(act: Act) -> Act:
    """On stream 1 a call is open that the server does not answer."""

    def acts(peer: Peer) -> None:
        peer.header(1, headers(TALK))
        act(peer)

    return acts


def over_call(act: Act) -> Act:
    """A call has ended on stream 1, by both sides."""

    def acts(peer: Peer) -> None:
        peer.call(1)
        peer.reply(1)
        act(peer)

    return acts


def header_block(peer: Peer) -> bytes:
    return peer.encoder.encode(headers(HANG))


def continued_on_another(peer: Peer) -> None:
    peer.frame(frames.HEADERS, 0, 1, header_block(peer))
    peer.frame(frames.CONTINUATION, frames.END_HEADERS, 3, b"")


def data_in_a_block(peer: Peer) -> None:
    peer.frame(frames.HEADERS, 0, 1, header_block(peer))
    peer.data(1, b"")


def unknown_in_a_block(peer: Peer) -> None:
    peer.frame(frames.HEADERS, 0, 1, header_block(peer))
    peer.frame(0xBA)


def lower_number(peer: Peer) -> None:
    peer.header(5, headers(HANG))
    peer.header(3, headers(HANG))


def wider_than_can_be(peer: Peer) -> None:
    peer.frame(frames.WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1))


def window_grows_by_settings(peer: Peer) -> None:
    peer.header(1, headers(HANG))
    peer.frame(frames.WINDOW_UPDATE, 0, 1, struct.pack(">I", 2**31 - 1 - 65_535))
    peer.send(frames.settings([(frames.INITIAL_WINDOW_SIZE, 65_536)]))


def setting(name: int, value: int) -> Act:
    return lambda peer: peer.send(frames.settings([(name, value)]))


WORD = b"\0\0\0\1"
OF_THE_CONNECTION: list[tuple[str, Act, Code]] = [
    ("DATA on stream 0", send(frames.DATA, 0, 0, b"x"), Code.PROTOCOL_ERROR),
    ("DATA on an idle stream", send(frames.DATA, 0, 1, b"x"), Code.PROTOCOL_ERROR),
    ("DATA with too much padding", after_a_call(send(frames.DATA, frames.PADDED, 1, b"\x05abc")), Code.PROTOCOL_ERROR),
    ("DATA padded, without a length", after_a_call(send(frames.DATA, frames.PADDED, 1)), Code.FRAME_SIZE_ERROR),
    ("HEADERS on stream 0", lambda peer: peer.header(0), Code.PROTOCOL_ERROR),
    ("HEADERS on an even stream", lambda peer: peer.header(2), Code.PROTOCOL_ERROR),
    ("HEADERS on a lower stream", lower_number, Code.PROTOCOL_ERROR),
    ("HEADERS on a stream that is over", over_call(lambda peer: peer.header(1)), Code.STREAM_CLOSED),
    ("HEADERS with too much padding", send(frames.HEADERS, frames.PADDED | 4, 1, b"\x05abc"), Code.PROTOCOL_ERROR),
    ("HEADERS too short for a priority", send(frames.HEADERS, frames.HAS_PRIORITY | 4, 1, b"abc"), Code.FRAME_SIZE_ERROR),
    ("HEADERS that depend on themselves", send(frames.HEADERS, frames.HAS_PRIORITY | 4, 1, WORD + b"\0"), Code.PROTOCOL_ERROR),
    ("HEADERS that are no HPACK", send(frames.HEADERS, 4, 1, b"\xff\xff\xff\xff\xff\xff"), Code.COMPRESSION_ERROR),
    ("an index that is not in the table", send(frames.HEADERS, 4, 1, b"\xfe"), Code.COMPRESSION_ERROR),
    ("a table larger than allowed", send(frames.HEADERS, 4, 1, b"\x3f\xe2\x1f"), Code.COMPRESSION_ERROR),
    ("three sizes for the table", send(frames.HEADERS, 4, 1, b"\x20\x20\x20"), Code.COMPRESSION_ERROR),
    ("PRIORITY of 4 bytes on an idle stream", send(frames.PRIORITY, 0, 1, WORD), Code.FRAME_SIZE_ERROR),
    ("PRIORITY of an idle stream on itself", send(frames.PRIORITY, 0, 1, WORD + b"\0"), Code.PROTOCOL_ERROR),
    ("PRIORITY on stream 0", send(frames.PRIORITY, 0, 0, WORD + b"\0"), Code.PROTOCOL_ERROR),
    ("RST_STREAM on stream 0", send(frames.RST_STREAM, 0, 0, WORD), Code.PROTOCOL_ERROR),
    ("RST_STREAM on an idle stream", send(frames.RST_STREAM, 0, 1, WORD), Code.PROTOCOL_ERROR),
    ("RST_STREAM of 3 bytes", after_a_call(send(frames.RST_STREAM, 0, 1, b"abc")), Code.FRAME_SIZE_ERROR),
    ("SETTINGS on a stream", send(frames.SETTINGS, 0, 1), Code.PROTOCOL_ERROR),
    ("SETTINGS of 5 bytes", send(frames.SETTINGS, 0, 0, b"abcde"), Code.FRAME_SIZE_ERROR),
    ("SETTINGS acknowledged with more", send(frames.SETTINGS, frames.ACK, 0, b"abcdef"), Code.FRAME_SIZE_ERROR),
    ("ENABLE_PUSH 2", setting(frames.ENABLE_PUSH, 2), Code.PROTOCOL_ERROR),
    ("INITIAL_WINDOW_SIZE 2**31", setting(frames.INITIAL_WINDOW_SIZE, 2**31), Code.FLOW_CONTROL_ERROR),
    ("MAX_FRAME_SIZE 16383", setting(frames.MAX_FRAME_SIZE, 16_383), Code.PROTOCOL_ERROR),
    ("MAX_FRAME_SIZE 2**24", setting(frames.MAX_FRAME_SIZE, 2**24), Code.PROTOCOL_ERROR),
    ("PUSH_PROMISE", send(frames.PUSH_PROMISE, 4, 1, WORD), Code.PROTOCOL_ERROR),
    ("PING on a stream", send(frames.PING, 0, 1, b"12345678"), Code.PROTOCOL_ERROR),
    ("PING of 7 bytes", send(frames.PING, 0, 0, b"1234567"), Code.FRAME_SIZE_ERROR),
    ("GOAWAY on a stream", send(frames.GOAWAY, 0, 1, b"12345678"), Code.PROTOCOL_ERROR),
    ("GOAWAY of 7 bytes", send(frames.GOAWAY, 0, 0, b"1234567"), Code.FRAME_SIZE_ERROR),
    ("WINDOW_UPDATE by 0", send(frames.WINDOW_UPDATE, 0, 0, b"\0\0\0\0"), Code.PROTOCOL_ERROR),
    ("WINDOW_UPDATE of 3 bytes", send(frames.WINDOW_UPDATE, 0, 0, b"abc"), Code.FRAME_SIZE_ERROR),
    ("WINDOW_UPDATE on an idle stream", send(frames.WINDOW_UPDATE, 0, 1, WORD), Code.PROTOCOL_ERROR),
    ("a window over 2**31 - 1", wider_than_can_be, Code.FLOW_CONTROL_ERROR),
    ("a stream's window over 2**31 - 1 by SETTINGS", window_grows_by_settings, Code.FLOW_CONTROL_ERROR),
    ("CONTINUATION of nothing", send(frames.CONTINUATION, 4, 1), Code.PROTOCOL_ERROR),
    ("CONTINUATION on another stream", continued_on_another, Code.PROTOCOL_ERROR),
    ("DATA within a header block", data_in_a_block, Code.PROTOCOL_ERROR),
    ("an unknown frame within a header block", unknown_in_a_block, Code.PROTOCOL_ERROR),
    ("a frame of 16385 bytes", send(frames.PING, 0, 0, bytes(16_385)), Code.FRAME_SIZE_ERROR),
]


@pytest.mark.parametrize(("act", "code"), [case[1:] for case in OF_THE_CONNECTION], ids=[case[0] for case in OF_THE_CONNECTION])
def test_what_ends_a_connection(server: Hosted, act: Act, code: Code) -> None:
    with Peer(server.port) as peer:
        act(peer)
        assert peer.goaway()[0] == code
    server.wait_until(lambda: server.open == 0)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\nhost: here\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rx", b"\x16\x03\x01"])
def test_what_is_no_http_2(server: Hosted, said: bytes) -> None:
    with Peer(server.port, greet=False) as peer:
        peer.send(said)
        assert peer.goaway()[0] == Code.PROTOCOL_ERROR


def test_the_first_frame_is_settings(server: Hosted) -> None:
    for first in (frames.frame(frames.PING, 0, 0, bytes(8)), frames.SETTINGS_ACK):
        with Peer(server.port, greet=False) as peer:
            peer.send(frames.PREFACE + first)
            assert peer.goaway()[0] == Code.PROTOCOL_ERROR


def changed(*changes: tuple[str, str], less: str = "", more: tuple[tuple[str, str], ...] = ()) -> Act:
    """A call with fields before the others, with fewer of them, or with more after them."""
    fields = [*changes, *(field for field in headers() if field[0] != less), *more]
    return lambda peer: peer.header(1, fields)


def opened(act: Act, **more: str) -> Act:
    def acts(peer: Peer) -> None:
        peer.header(1, headers(TALK, **more))
        act(peer)

    return acts


def half_closed(act: Act) -> Act:
    def acts(peer: Peer) -> None:
        peer.call(1, method=HANG)
        act(peer)

    return acts


def trailers(peer: Peer, fields: list[tuple[str, str]], end: bool = True) -> None:
    peer.frame(frames.HEADERS, frames.END_HEADERS | (frames.END_STREAM if end else 0), 1, peer.encoder.encode(fields))


OF_A_STREAM: list[tuple[str, Act, Code]] = [
    ("DATA after the end", half_closed(lambda peer: peer.data(1, b"x")), Code.STREAM_CLOSED),
    ("HEADERS after the end", half_closed(lambda peer: trailers(peer, [("x", "y")])), Code.STREAM_CLOSED),
    ("DATA on a stream that is over", over_call(lambda peer: peer.data(1, b"x")), Code.STREAM_CLOSED),
    ("WINDOW_UPDATE by 0", opened(send(frames.WINDOW_UPDATE, 0, 1, b"\0\0\0\0")), Code.PROTOCOL_ERROR),
    ("a window over 2**31 - 1", opened(send(frames.WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff")), Code.FLOW_CONTROL_ERROR),
    ("PRIORITY of 4 bytes", opened(send(frames.PRIORITY, 0, 1, WORD)), Code.FRAME_SIZE_ERROR),
    ("PRIORITY that depends on itself", opened(send(frames.PRIORITY, 0, 1, WORD + b"\0")), Code.PROTOCOL_ERROR),
    ("a name in capitals", changed(more=(("X-Y", "z"),)), Code.PROTOCOL_ERROR),
    ("a name with a space", changed(more=(("x y", "z"),)), Code.PROTOCOL_ERROR),
    ("a value with a line feed", changed(more=(("x", "y\nz"),)), Code.PROTOCOL_ERROR),
    ("a field of HTTP/1.1", changed(more=(("connection", "keep-alive"),)), Code.PROTOCOL_ERROR),
    ("te that is not trailers", changed(more=(("te", "gzip"),)), Code.PROTOCOL_ERROR),
    ("an unknown pseudo-field", changed((":x", "y")), Code.PROTOCOL_ERROR),
    ("a pseudo-field of responses", changed((":status", "200")), Code.PROTOCOL_ERROR),
    ("a pseudo-field after another field", changed(more=((":path", "/x"),)), Code.PROTOCOL_ERROR),
    ("a pseudo-field twice", changed((":method", "POST")), Code.PROTOCOL_ERROR),
    ("no method", changed(less=":method"), Code.PROTOCOL_ERROR),
    ("no scheme", changed(less=":scheme"), Code.PROTOCOL_ERROR),
    ("no path", changed(less=":path"), Code.PROTOCOL_ERROR),
    ("an empty path", changed((":path", ""), less=":path"), Code.PROTOCOL_ERROR),
    ("more than content-length", opened(lambda peer: peer.data(1, b"xx", end=False), content_length="1"), Code.PROTOCOL_ERROR),
    ("less than content-length", opened(lambda peer: peer.data(1, b"xx"), content_length="3"), Code.PROTOCOL_ERROR),
    ("a content-length that is no number", changed(more=(("content-length", "9" * 5000),)), Code.PROTOCOL_ERROR),
    ("trailers that do not end", opened(lambda peer: trailers(peer, [("x", "y")], end=False)), Code.PROTOCOL_ERROR),
    ("trailers with a pseudo-field", opened(lambda peer: trailers(peer, [(":path", "/")])), Code.PROTOCOL_ERROR),
]


@pytest.mark.parametrize(("act", "code"), [case[1:] for case in OF_A_STREAM], ids=[case[0] for case in OF_A_STREAM])
def test_what_ends_a_stream_alone(server: Hosted, act: Act, code: Code) -> None:
    with Peer(server.port) as peer:
        act(peer)
        assert peer.until(frames.RST_STREAM).code == code
        peer.call(3, b"as before")
        assert peer.reply(3) == message(b"as before")
    server.wait_until(lambda: server.open == 0)


def test_what_is_not_known_or_kept_is_passed_over(server: Hosted) -> None:
    with Peer(server.port, settings={0xF0F0: 1, frames.INITIAL_WINDOW_SIZE: 100, 9: 9}) as peer:
        peer.frame(0xBA, 0xFF, 0, b"anything")
        peer.frame(0xBB, 0, 7, b"")
        peer.frame(frames.PRIORITY, 0, 9, b"\0\0\0\3\1")
        peer.frame(frames.GOAWAY, 0, 0, bytes(8))
        block = peer.encoder.encode(headers())
        peer.frame(frames.HEADERS, frames.HAS_PRIORITY | frames.PADDED, 11, b"\2\x80\0\0\0\7" + block[:4] + b"\0\0")
        peer.frame(frames.CONTINUATION, 0, 11, b"")
        peer.send(frames.HEAD.pack(0, len(block) - 4, frames.CONTINUATION, frames.END_HEADERS, 1 << 31 | 11) + block[4:])
        peer.frame(frames.DATA, frames.PADDED | frames.END_STREAM, 11, b"\3" + message(b"padded") + b"\0\0\0")
        assert peer.reply(11) == message(b"padded")


def test_trailers_end_a_message(server: Hosted) -> None:
    with Peer(server.port) as peer:
        peer.header(1)
        peer.data(1, message(b"x"), end=False)
        trailers(peer, [("x", "y")])
        assert peer.reply(1) == message(b"x")


def test_frames_may_come_byte_by_byte_and_all_at_once(server: Hosted) -> None:
    with Peer(server.port, greet=False) as peer:
        block = peer.encoder.encode(headers())
        said = frames.PREFACE + frames.settings([]) + frames.frame(frames.HEADERS, 4, 1, block)
        for at in range(len(said)):
            peer.send(said[at : at + 1])
        peer.send(frames.frame(frames.DATA, 1, 1, message(b"x")) + frames.frame(frames.PING, 0, 0, b"12345678"))
        assert peer.until(frames.PING, flags=frames.ACK).payload == b"12345678"
        assert peer.reply(1) == message(b"x")


def test_a_client_is_told_what_it_may_do_and_that_it_was_heard(server: Hosted) -> None:
    with Peer(server.port) as peer:
        told = dict(struct.iter_unpack(">HI", peer.until(frames.SETTINGS).payload))
        assert told == {frames.MAX_CONCURRENT_STREAMS: 4096, frames.INITIAL_WINDOW_SIZE: 2**20, frames.MAX_HEADER_LIST_SIZE: 2**14}
        peer.until(frames.SETTINGS, flags=frames.ACK)
        peer.lives()


def test_what_was_on_its_way_to_a_stream_that_we_ended_is_no_mistake(server: Hosted) -> None:
    with Peer(server.port) as peer:
        peer.header(1, headers("/no.Such/Method"))
        assert peer.status(1) == (12, "Method not found!")
        assert peer.until(frames.RST_STREAM).code == Code.NO_ERROR
        peer.data(1, message(bytes(40_000)))
        peer.lives()


def test_a_stream_that_both_have_ended_is_not_reset(server: Hosted) -> None:
    with Peer(server.port) as peer:
        peer.header(1, headers("/no.Such/Method"), end=True)
        assert peer.status(1) == (12, "Method not found!")
        peer.frame(frames.PING, 0, 0, b"12345678")
        while (frame := peer.read()) is not None and frame.kind != frames.PING:
            assert frame.kind != frames.RST_STREAM
