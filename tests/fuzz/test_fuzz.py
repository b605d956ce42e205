"""The fuzzers with fixed seeds, and what they have found, each with a test of its own."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc
from server import Server

from fuzz import damage
from fuzz.grpc_wire import PREFIX, grpc_wire, recorded_call
from fuzz.http2_frames import http2_frames
from fuzz.http_wire import http_wire
from fuzz.in_process import NO_PROTOBUF, grpc_messages, http_bodies
from fuzz.wire import WirePart, exchange, fuzzed_server, over_the_wire, unharmed
from octavo.wire import pb


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with fuzzed_server() as started:
        yield started


@pytest.mark.parametrize("seed", range(2))
def test_no_grpc_message_breaks_a_front_end(seed: int) -> None:
    ends = grpc_messages(3000, seed)
    assert min(ends[NO_PROTOBUF], ends["invalid_request"], ends["answered"]) > 100


@pytest.mark.parametrize("seed", range(2))
def test_no_http_body_breaks_a_front_end(seed: int) -> None:
    ends = http_bodies(3000, seed)
    assert min(ends["invalid_request"], ends["answered"]) > 100


@pytest.mark.parametrize("seed", range(2))
def test_no_frames_break_a_connection(seed: int) -> None:
    ends = http2_frames(300, seed)
    assert min(ends["it went on"], ends["PROTOCOL_ERROR"], ends["COMPRESSION_ERROR"], ends["FLOW_CONTROL_ERROR"]) > 5


@pytest.mark.parametrize("part", [grpc_wire, http_wire])
def test_nothing_sent_to_a_port_breaks_a_server(server: Server, part: WirePart) -> None:
    with unharmed(server):
        assert part(server, 600, 0).total() == 600


def test_a_method_or_metadata_that_is_no_text_ends_its_own_call_and_leaves_no_line(server: Server) -> None:
    """One such method used to end the gRPC server of its front end, for everybody and for good."""
    with unharmed(server):
        lines = server.log.read_text().count("\n")
        recorded = recorded_call(server)
        for right, wrong in ((b"ModelInfer", b"Model\xcenfer"), (b"grpc-python", b"grpc\xcepython")):
            assert right in recorded
            exchange(server.grpc, recorded.replace(right, wrong), 0.2)
        with grpc.insecure_channel(server.grpc) as channel:
            live = channel.unary_unary(f"{PREFIX}ServerLive")(b"", timeout=30)
        assert pb.ServerLiveResponse.FromString(live).live
        assert server.log.read_text().count("\n") == lines


def test_the_same_seed_does_the_same_damage() -> None:
    one, other = (damage.damaged(b"some bytes", random.Random(3)) for _ in range(2))
    assert one == other != b"some bytes"


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_for_a_long_time() -> None:
    chance = random.SystemRandom()
    for part in (grpc_messages, http_bodies, http2_frames):
        part(100_000, chance.randrange(2**32))
    for wire in (grpc_wire, http_wire):
        over_the_wire(wire, 20_000, chance.randrange(2**32))
