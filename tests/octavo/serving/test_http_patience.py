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


async def echo(request: Request) -> Response:
    try:
        return Response(await body.read_body(request, 100))
    except InvalidRequest as error:
        return Response(str(error), 400)


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    taken = listener("127.0.0.1", 0)
    server = listen.HttpServer(Starlette(routes=[Route("/", echo, methods=["POST"])]), taken)
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
