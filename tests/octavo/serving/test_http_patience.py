"""A client that says half of something: it is waited for, though not for ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from octavo.errors import InvalidRequest
from octavo.serving.http import body, listen
from octavo.serving.ports import listener

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "HEADER_PATIENCE", 0.3)
    monkeypatch.setattr(body, "BODY_PATIENCE", 0.3)


class Echo:
    """Answers with the body after some seconds, unless the caller goes; ``begun`` and ``gone`` are told."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.begun, self.gone = asyncio.Event(), asyncio.Event()

    async def answer(self, request: Request) -> Response:
        try:
            data = await body.read_body(request, 100)
        except InvalidRequest as error:
            return Response(str(error), 400)
        self.begun.set()
        leaving = asyncio.ensure_future(request.receive())
        await asyncio.wait({leaving}, timeout=self.seconds)
        if leaving.done():
            self.gone.set()
        leaving.cancel()
        return Response(data)


@asynccontextmanager
async def connection(echo: Echo | None = None) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    taken = listener("127.0.0.1", 0)
    server = listen.HttpServer(Starlette(routes=[Route("/", (echo or Echo(0)).answer, methods=["POST"])]), taken)
    reader, writer = await asyncio.open_connection(*taken.getsockname())
    async with asyncio.timeout(20):
        yield reader, writer
    writer.close()
    await server.close()


@pytest.mark.parametrize("start", [b"", b"POST / HTTP/1.1\r\nHost", HEAD + b"abcd" + b"POST / HTTP/1.1\r\nHost"])
def test_half_a_header_ends_the_connection(start: bytes) -> None:
    async def run() -> bytes:
        async with connection() as (reader, writer):
            writer.write(start)
            return await reader.read()

    said = asyncio.run(run())
    assert said.endswith(b"abcd") if HEAD in start else not said


def test_half_a_body_is_refused() -> None:
    async def run() -> bytes:
        async with connection() as (reader, writer):
            writer.write(HEAD + b"ab")
            return await reader.readuntil(b"0.3 s.")

    assert asyncio.run(run()).startswith(b"HTTP/1.1 400 ")


def test_a_body_that_comes_slowly_is_read() -> None:
    async def run() -> bytes:
        async with connection() as (reader, writer):
            writer.write(HEAD)
            for byte in b"abcd":
                await asyncio.sleep(0.15)
                writer.write(bytes([byte]))
            return await reader.readuntil(b"abcd")

    assert asyncio.run(run()).startswith(b"HTTP/1.1 200 ")


def test_an_answer_may_take_longer_than_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_PATIENCE", 5)

    async def run() -> bytes:
        async with connection() as (reader, writer):
            writer.write(HEAD)
            await asyncio.sleep(1)
            writer.write(b"abcd")
            return await reader.readuntil(b"abcd")

    assert asyncio.run(run()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("seconds", [0, 1.0])
@pytest.mark.parametrize("requests", [1, 2])
def test_who_closes_its_side_after_whole_requests_gets_their_answers(requests: int, seconds: float) -> None:
    """The second of two is pipelined. What is told meanwhile is only to continue."""

    async def run() -> bytes:
        async with connection(Echo(seconds)) as (reader, writer):
            writer.write((HEAD + b"abcd") * requests)
            writer.write_eof()
            return await reader.read()

    said = asyncio.run(run())
    assert said.count(b"\r\n\r\nabcd") == said.count(b"HTTP/1.1 200 ") == requests
    assert said.count(b"HTTP/1.1 100 Continue\r\n\r\n") == said.count(b"HTTP/1.1 ") - requests
    assert b"HTTP/1.1 100 " in said or not seconds
    assert said.lower().count(b"connection: close") == 1


@pytest.mark.parametrize("start", [b"", HEAD, HEAD + b"ab", b"POST / HTTP/1.1\r\nHost"])
def test_who_closes_its_side_within_a_request_is_hung_up_on(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "HEADER_PATIENCE", 60)
    monkeypatch.setattr(body, "BODY_PATIENCE", 60)

    async def run() -> bytes:
        async with connection() as (reader, writer):
            writer.write(HEAD + b"abcd")
            await reader.readuntil(b"abcd")
            writer.write(start)
            writer.write_eof()
            return await reader.read()

    assert asyncio.run(run()) == b""


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_who_has_gone_after_a_whole_request_ends_it(version: bytes) -> None:
    async def run() -> None:
        echo = Echo(600)
        async with connection(echo) as (_, writer):
            writer.write(HEAD.replace(b"1.1", version) + b"abcd")
            await echo.begun.wait()
            writer.close()
            await echo.gone.wait()

    asyncio.run(run())
