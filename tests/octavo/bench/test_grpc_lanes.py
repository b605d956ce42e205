"""The bench's client of gRPC: what a server of ours tells it, and that whatever would make a figure wrong is an error."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from octavo.bench.grpc_lanes import LAST, STREAM_INFER, GrpcConnection, GrpcLane
from octavo.bench.lanes import Job
from octavo.serving.http2 import frames
from octavo.serving.http2.call import Call
from octavo.serving.http2.status import Status
from octavo.wire import pb

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))
from raw_http2 import Hosted, hosted

MAX_STREAMS = 3
PATIENCE = 20.0


class Source:
    """Answers each request of a stream with a word a message, as often as ``words`` says, or does as ``instead`` says."""

    words = 3
    name = ""
    instead: Callable[[Call], None] | None = None

    def __init__(self, call: Call) -> None:
        self._call = call

    def receive(self, message: bytes) -> None:
        if Source.instead is not None:
            Source.instead(self._call)
            return
        request = pb.ModelInferRequest.FromString(message)
        text = request.raw_input_contents[0][4:].decode().split()
        for number in range(Source.words):
            answer = pb.ModelStreamInferResponse()
            answer.infer_response.id = Source.name or request.id
            word = f" {text[number % len(text)]}".encode()
            answer.infer_response.raw_output_contents.append(len(word).to_bytes(4, "little") + word)
            answer.infer_response.parameters["triton_final_response"].bool_param = number == Source.words - 1
            self._call.write(answer.SerializeToString())

    def receive_end(self) -> None:
        self._call.end()

    def writable(self) -> None:
        pass

    def closed(self) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[Hosted]:
    with hosted(max_streams=MAX_STREAMS) as one:
        one.routes[STREAM_INFER] = Source
        yield one


@pytest.fixture(autouse=True)
def usual(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("words", "name", "instead"):
        monkeypatch.setattr(Source, name, getattr(Source, name))


def job(port: int) -> Job:
    return Job(address=f"127.0.0.1:{port}", model="m", lanes=MAX_STREAMS, tokens=3, seconds=1.0, connections=1)


async def connected(port: int, lanes: int) -> list[GrpcLane]:
    connection = GrpcConnection(f"127.0.0.1:{port}")
    await asyncio.wait_for(connection.connect(), PATIENCE)
    return [GrpcLane(number, job(port), connection) for number in range(lanes)]


def asked(port: int, lanes: int = 1, times: int = 1) -> list[GrpcLane]:
    """Lanes of one connection, after each has asked so many times."""

    async def ask() -> list[GrpcLane]:
        opened = await connected(port, lanes)
        for _ in range(times):
            await asyncio.wait_for(asyncio.gather(*(lane.ask() for lane in opened)), PATIENCE)
        opened[0].close()
        return opened

    return asyncio.run(ask())


def test_every_lane_of_a_connection_has_its_answers_in_order(server: Hosted) -> None:
    for lane in asked(server.port, MAX_STREAMS, times=2):
        answers = lane.answers()
        assert [len(messages) for messages in answers] == [3, 3]
        assert b"".join(map(lane.text_of, answers[1])).decode() == " " + " ".join(lane.prompt.split()[:3])
        arrivals = [at for messages in answers for at in lane.arrivals(messages)]
        assert len(arrivals) == 6 and arrivals == sorted(arrivals)


def test_more_streams_than_the_server_takes_are_an_error(server: Hosted) -> None:
    with pytest.raises(RuntimeError, match=f"at most {MAX_STREAMS} streams"):
        asked(server.port, MAX_STREAMS + 1)


def test_an_answer_to_another_is_an_error(server: Hosted) -> None:
    Source.name = "lane-7"
    (lane,) = asked(server.port)
    with pytest.raises(RuntimeError, match="Not an answer to lane-0"):
        lane.arrivals(lane.answers()[0])


@pytest.mark.parametrize("status", [Status.OK, Status.UNAVAILABLE])
def test_a_stream_that_the_server_ends_is_an_error(server: Hosted, status: Status) -> None:
    Source.instead = staticmethod(lambda call: call.end(status, "enough"))
    with pytest.raises(RuntimeError, match=f"grpc-status': b'{int(status)}'.*enough"):
        asked(server.port)


def test_a_method_that_is_not_there_is_an_error(server: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "routes", {})
    with pytest.raises(RuntimeError, match="Method not found"):
        asked(server.port)


def test_a_server_that_leaves_is_an_error(server: Hosted) -> None:
    Source.instead = staticmethod(lambda call: call._carrier.retire())
    with pytest.raises(RuntimeError, match=f"no benchmark needs, of type {frames.GOAWAY}"):
        asked(server.port)


def test_a_server_that_hangs_up_is_an_error(server: Hosted) -> None:
    Source.instead = staticmethod(lambda call: call._carrier.abort())
    with pytest.raises(RuntimeError, match="closed a connection"):
        asked(server.port)


def test_frames_that_come_byte_by_byte_and_messages_cut_anywhere() -> None:
    """A ping on the way is answered; a message has come when its last byte has, also when the mark of the last is cut."""
    answer = pb.ModelStreamInferResponse()
    answer.infer_response.id = "lane-0"
    answer.infer_response.raw_output_contents.append(b"\x05\0\0\0 time")
    answer.infer_response.parameters["triton_final_response"].bool_param = True
    data = answer.SerializeToString()
    message = frames.PREFIX.pack(0, len(data)) + data
    cut = message.index(LAST) + 3
    ping = frames.frame(frames.PING, 0, 0, b"12345678")
    reply = b"".join(frames.frame(frames.DATA, 0, 1, part) for part in (message[:2], message[2:cut], message[cut:]))
    pinged = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frames.settings([]))
        await reader.readuntil(b"\x00\x00\x00\x04\x01\x00\x00\x00\x00")
        for byte in ping + reply:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        await reader.readuntil(frames.frame(frames.PING, frames.ACK, 0, b"12345678"))
        pinged.set()
        await reader.read()

    async def ask() -> GrpcLane:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
            (lane,) = await connected(listening.sockets[0].getsockname()[1], 1)
            await asyncio.wait_for(lane.ask(), PATIENCE)
            await asyncio.wait_for(pinged.wait(), PATIENCE)
            lane.close()
            return lane

    lane = asyncio.run(ask())
    ((whole,),) = lane.answers()
    assert (lane.text_of(whole), whole.data) == (b" time", data)
