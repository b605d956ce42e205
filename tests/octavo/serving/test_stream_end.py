"""How a stream ends when two reasons meet in one turn of the loop, with fakes in place of the engine and the client."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

from octavo.errors import InvalidRequest
from octavo.serving.grpc.stream import ERROR_AS_STATUS, InferStreams
from octavo.serving.http2.status import Status
from octavo.serving.news import News
from octavo.serving.traffic import Traffic
from octavo.text.request import GenerateChunk


class Answer:
    """A generation whose one chunk is there once ``end`` is called."""

    def __init__(self, over: bool = False) -> None:
        self._over = over
        self.cancelled = False

    def listen(self, heard: Callable[[], None]) -> None:
        self._heard = heard

    def end(self) -> None:
        self._over = True
        self._heard()

    def take(self) -> GenerateChunk | None:
        return GenerateChunk([], True, []) if self._over else None

    def cancel(self) -> None:
        self.cancelled = True


class FakeCall:
    """Takes messages while ``ready``, and remembers them and how it ended, which is not before what was written is taken."""

    def __init__(self, **metadata: str) -> None:
        self.ready = True
        self.written: list[bytes] = []
        self.status: list[Status] = []
        self.header = metadata.get

    def at_end_of_turn(self, work: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(work)

    def write(self, message: bytes) -> None:
        assert self.ready and not self.status
        self.written.append(message)

    def end(self, status: Status = Status.OK, _: str = "") -> None:
        self.status.append(status)


def streams(begin: Callable[..., object], models: SimpleNamespace, traffic: Traffic) -> InferStreams:
    return InferStreams(SimpleNamespace(begin=begin, backlog=lambda: None), models, 8, traffic)


async def status_after_drain() -> list[Status]:
    call, answer, models, traffic = FakeCall(), Answer(), SimpleNamespace(exiting=False, news=News()), Traffic()
    begun = SimpleNamespace(generation=answer, reply=SimpleNamespace(streamed=lambda _: None))
    stream = streams(lambda *_, **__: begun, models, traffic).open(call)
    stream.receive(b"")
    stream.receive_end()
    await asyncio.sleep(0.001)
    models.exiting = True
    models.news.tell()
    await asyncio.sleep(0.001)
    assert (call.status, traffic.open) == ([], 1)
    answer.end()
    await asyncio.sleep(0.001)
    stream.closed()
    assert (answer.cancelled, traffic.open) == (True, 0)
    return call.status


def test_a_client_that_has_sent_all_and_got_all_is_told_nothing_of_a_drain() -> None:
    assert [asyncio.run(status_after_drain()) for _ in range(5)] == [[Status.OK]] * 5


async def status_of_a_drained_stream(open_before: bool) -> list[Status]:
    call, models = FakeCall(), SimpleNamespace(exiting=not open_before, news=News())
    streams(lambda *_, **__: None, models, Traffic()).open(call)
    await asyncio.sleep(0.001)
    models.exiting = True
    models.news.tell()
    await asyncio.sleep(0.001)
    return call.status


def test_a_stream_without_requests_ends_with_the_server() -> None:
    for open_before in (True, False):
        assert asyncio.run(status_of_a_drained_stream(open_before)) == [Status.UNAVAILABLE]


async def status_behind_a_message() -> None:
    """A request is answered and another refused while the client takes nothing."""
    call, models, begun = FakeCall(**{ERROR_AS_STATUS: "true"}), SimpleNamespace(exiting=False, news=News()), []
    reply = SimpleNamespace(streamed=lambda _: b"answer")

    def begin(*_: object, **__: object) -> SimpleNamespace:
        begun.append(1)
        if len(begun) == 2:
            raise InvalidRequest("no")
        return SimpleNamespace(generation=Answer(over=True), reply=reply)

    call.ready = False
    stream = streams(begin, models, Traffic()).open(call)
    stream.receive(b"")
    stream.receive(b"")
    await asyncio.sleep(0.001)
    assert (call.written, call.status) == ([], [])
    call.ready = True
    stream.writable()
    await asyncio.sleep(0.001)
    assert (call.written, call.status) == ([b"answer"], [Status.INVALID_ARGUMENT])


def test_an_error_as_status_comes_after_the_messages_before_it() -> None:
    asyncio.run(status_behind_a_message())
