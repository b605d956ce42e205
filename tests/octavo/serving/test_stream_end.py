"""How a stream ends when two reasons meet in one turn of the loop, with fakes in place of the engine and the client."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

import grpc

from octavo.errors import InvalidRequest
from octavo.serving.grpc.stream import ERROR_AS_STATUS, InferStream
from octavo.serving.news import News
from octavo.text.request import GenerateChunk


class Answer:
    """A generation whose one chunk is there once ``end`` is called."""

    def __init__(self) -> None:
        self._over = False

    def listen(self, heard: Callable[[], None]) -> None:
        self._heard = heard

    def end(self) -> None:
        self._over = True
        self._heard()

    def take(self) -> GenerateChunk | None:
        return GenerateChunk([], True, []) if self._over else None

    def cancel(self) -> None:
        pass


class Client:
    """Sends one request, half-closes, and remembers how the stream ended."""

    def __init__(self) -> None:
        self._sent = [b"", grpc.aio.EOF]
        self.status = grpc.StatusCode.OK

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    async def read(self) -> object:
        return self._sent.pop(0)

    async def abort(self, code: grpc.StatusCode, _: str) -> None:
        self.status = code


async def status_after_drain() -> grpc.StatusCode:
    client, answer, models = Client(), Answer(), SimpleNamespace(exiting=False, news=News())
    begun = SimpleNamespace(generation=answer, reply=SimpleNamespace(streamed=lambda _: None))
    service = SimpleNamespace(begin=lambda *_, **__: begun, backlog=lambda: None)
    running = asyncio.ensure_future(InferStream(service, models, client, 8).run())
    await asyncio.sleep(0.001)
    models.exiting = True
    models.news.tell()
    await asyncio.sleep(0.001)
    answer.end()
    await running
    return client.status


def test_a_client_that_has_sent_all_and_got_all_is_told_nothing_of_a_drain() -> None:
    assert {asyncio.run(status_after_drain()) for _ in range(30)} == {grpc.StatusCode.OK}


class SlowClient(Client):
    """Wants errors as a status, sends two requests, and takes a message only once it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self._sent = [b"", b""]
        self.ready, self.taken = asyncio.Event(), 0

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ((ERROR_AS_STATUS, "true"),)

    async def read(self) -> object:
        return self._sent.pop(0) if self._sent else await asyncio.Future()

    async def write(self, _: bytes) -> None:
        await self.ready.wait()
        self.taken += 1


class OneMessage(Answer):
    """A generation that has its chunk from the start."""

    def __init__(self) -> None:
        self._over = True


async def status_behind_a_message() -> None:
    client, models, begun = SlowClient(), SimpleNamespace(exiting=False, news=News()), []
    reply = SimpleNamespace(streamed=lambda _: b"")

    def begin(*_: object, **__: object) -> SimpleNamespace:
        begun.append(1)
        if len(begun) == 2:
            raise InvalidRequest("no")
        return SimpleNamespace(generation=OneMessage(), reply=reply)

    running = asyncio.ensure_future(InferStream(SimpleNamespace(begin=begin, backlog=lambda: None), models, client, 8).run())
    await asyncio.sleep(0.01)
    assert (len(begun), client.taken, client.status) == (2, 0, grpc.StatusCode.OK)
    client.ready.set()
    await running
    assert (client.taken, client.status) == (1, grpc.StatusCode.INVALID_ARGUMENT)


def test_an_error_as_status_waits_for_the_message_that_is_on_its_way() -> None:
    """gRPC refuses to send a status meanwhile, and the client would wait for ever."""
    asyncio.run(status_behind_a_message())
