"""How a stream ends when two reasons meet in one turn of the loop, with fakes in place of the engine and the client."""

import asyncio
from types import SimpleNamespace

import grpc

from octavo.serving.grpc.stream import InferStream
from octavo.serving.news import News


class Answer:
    """A generation that ends when ``over`` is set."""

    def __init__(self, over: asyncio.Event) -> None:
        self._over = over

    def __aiter__(self) -> "Answer":
        return self

    async def __anext__(self) -> None:
        await self._over.wait()
        raise StopAsyncIteration

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
    client, over, models = Client(), asyncio.Event(), SimpleNamespace(exiting=False, news=News())
    service = SimpleNamespace(begin=lambda *_, **__: SimpleNamespace(generation=Answer(over)))
    running = asyncio.ensure_future(InferStream(service, models, client, 8).run())
    await asyncio.sleep(0.001)
    models.exiting = True
    models.news.tell()
    await asyncio.sleep(0.001)
    over.set()
    await running
    return client.status


def test_a_client_that_has_sent_all_and_got_all_is_told_nothing_of_a_drain() -> None:
    assert {asyncio.run(status_after_drain()) for _ in range(30)} == {grpc.StatusCode.OK}
