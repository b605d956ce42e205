"""Flow control both ways: nothing is sent that a client did not ask for, and what waits for it is bounded."""

import struct
from collections.abc import Iterator

import pytest
from raw_http2 import ECHO, TALK, Hosted, Peer, headers, hosted, message

from octavo.serving.http2 import frames
from octavo.serving.http2.faults import Code
from octavo.serving.http2.flow import Intake
from octavo.serving.http2.status import Status

MIB = 2**20


@pytest.fixture(scope="module")
def server() -> Iterator[Hosted]:
    with hosted(max_message=2 * MIB) as one:
        yield one


def test_a_message_goes_as_far_as_the_streams_window(server: Hosted) -> None:
    with Peer(server.port, settings={frames.INITIAL_WINDOW_SIZE: 1}) as peer:
        peer.call(1, b"hello")
        assert peer.until(frames.DATA, 1).payload == b"\0"
        peer.widen(1, 4)
        assert peer.until(frames.DATA, 1).payload == b"\0\0\0\5"
        peer.send(frames.settings([(frames.INITIAL_WINDOW_SIZE, 3)]))  # two more for every stream
        assert peer.until(frames.DATA, 1).payload == b"he"
        peer.widen(1, 100)
        assert peer.reply(1) == b"llo"


def test_a_window_may_become_negative(server: Hosted) -> None:
    with Peer(server.port, settings={frames.INITIAL_WINDOW_SIZE: 3}) as peer:
        peer.call(1, b"hello")
        assert peer.until(frames.DATA, 1).payload == b"\0\0\0"
        peer.send(frames.settings([(frames.INITIAL_WINDOW_SIZE, 0)]))
        peer.widen(1, 3)
        peer.lives()  # and no data came before the answer to this
        peer.widen(1, 7)
        assert peer.reply(1) == b"\0\5hello"


def test_the_connections_window_holds_for_all_streams_and_goes_round(server: Hosted) -> None:
    with Peer(server.port, settings={frames.INITIAL_WINDOW_SIZE: MIB}) as peer:
        for stream in (1, 3, 5):
            peer.call(stream, bytes(50_000))
        read = sum(len(peer.until(frames.DATA).payload) for _ in range(5))
        while read < frames.DEFAULT_WINDOW:
            read += len(peer.until(frames.DATA).payload)
        assert read == frames.DEFAULT_WINDOW
        peer.lives()
        peer.widen(0, MIB)
        left = 3 * 50_005 - read
        while left:
            left -= len(peer.until(frames.DATA).payload)
        peer.lives()


def test_frames_are_no_larger_than_the_client_takes(server: Hosted) -> None:
    for size, largest in ((16_384, 16_384), (20_000, 20_000), (MIB, 65_536)):
        wide = {frames.INITIAL_WINDOW_SIZE: MIB, frames.MAX_FRAME_SIZE: size}
        with Peer(server.port, settings=wide) as peer:
            peer.widen(0, MIB)
            peer.call(1, bytes(200_000))
            assert len(peer.until(frames.DATA, 1).payload) == largest


def test_a_client_that_takes_nothing_holds_one_message_a_stream_and_is_not_read_further(server: Hosted) -> None:
    with Peer(server.port, settings={frames.INITIAL_WINDOW_SIZE: 0}) as peer:
        peer.header(1, headers(TALK))
        peer.data(1, message(b"x" * 1000) * 900, end=False)
        peer.lives()
        server.wait_until(lambda: server.held() == 899 * 1005)
        peer.widen(1, 1005)
        assert peer.until(frames.DATA, 1).payload == message(b"x" * 1000)
        server.wait_until(lambda: server.held() == 898 * 1005)
        peer.lives()
    server.wait_until(lambda: server.connections() == 0)
    assert server.open == 0


def test_a_stream_that_sends_more_than_its_window_is_ended(server: Hosted) -> None:
    with Peer(server.port, settings={frames.INITIAL_WINDOW_SIZE: 0}) as peer:
        peer.header(1, headers(TALK))
        peer.data(1, message(b"x" * 1000) * 1100, end=False)
        assert peer.until(frames.RST_STREAM, 1).code == Code.FLOW_CONTROL_ERROR
        peer.lives()


def test_a_large_message_is_let_in_window_by_window(server: Hosted) -> None:
    with Peer(server.port, settings={frames.INITIAL_WINDOW_SIZE: 4 * MIB, frames.MAX_FRAME_SIZE: MIB}) as peer:
        peer.widen(0, 8 * MIB)
        whole, sent, allowed = message(bytes(range(256)) * (2 * MIB // 256)), 0, MIB
        peer.header(1)
        while sent < len(whole):
            part = whole[sent : sent + min(allowed, 16_384)]
            peer.data(1, part, end=sent + len(part) == len(whole))
            sent, allowed = sent + len(part), allowed - len(part)
            while not allowed:
                allowed += int.from_bytes(peer.until(frames.WINDOW_UPDATE, 1).payload)
        assert peer.reply(1) == whole


def test_what_waits_here_for_all_calls_of_a_connection_is_bounded(server: Hosted) -> None:
    """Four of the largest messages; the fifth that is not whole is refused, and the others go on."""
    with Peer(server.port) as peer:
        for stream in range(1, 21, 2):
            peer.header(stream, headers(ECHO))
            peer.data(stream, message(bytes(2 * MIB))[: MIB - 10], end=False)
        refused = [peer.until(frames.RST_STREAM).stream for _ in range(2)]
        assert server.held() <= 4 * 2 * MIB
        peer.frame(frames.RST_STREAM, 0, 1, struct.pack(">I", Code.CANCEL))
        peer.lives()
        assert not {1, 3, 5, 7} & set(refused)
    server.wait_until(lambda: server.open == 0)


def test_a_message_that_waits_for_the_end_of_its_call_still_counts(server: Hosted) -> None:
    with Peer(server.port) as peer:
        for stream in range(1, 21, 2):
            peer.header(stream, headers(ECHO))
            peer.data(stream, message(bytes(MIB - 5)), end=False)
        refused = [peer.status(stream)[0] for stream in (17, 19)]
        assert refused == [Status.RESOURCE_EXHAUSTED] * 2 and server.held() <= 4 * 2 * MIB
        peer.data(1, b"")
        peer.widen(0, MIB)
        peer.widen(1, MIB)
        assert peer.reply(1) == message(bytes(MIB - 5))
    server.wait_until(lambda: server.open == 0 and server.connections() == 0)


def test_an_intake_gives_back_in_halves() -> None:
    intake = Intake(100)
    assert intake.take(100) and not intake.take(1)
    intake = Intake(100)
    assert intake.take(90)
    assert [intake.give_back(40), intake.owe(20), intake.give_back(5)] == [0, 0, 65]
    assert intake.take(75) and not intake.take(1)
