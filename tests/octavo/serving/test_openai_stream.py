"""What a stream says while there is nothing to tell, and how it ends when something goes wrong; the generation is played."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tiny import byte_tokenizer

from octavo.errors import Cancelled, EngineDead, OctavoError, Overloaded
from octavo.protocol.openai.chat import read_chat
from octavo.protocol.openai.chat_answer import ChatAnswer
from octavo.protocol.openai.dialects import Answer
from octavo.protocol.openai.responses import read_responses
from octavo.protocol.openai.responses_answer import ResponsesAnswer
from octavo.serving.http import listen
from octavo.serving.http.openai import stream
from octavo.serving.ports import listener
from octavo.text.answer_format import AnswerFormat
from octavo.text.request import GenerateChunk, SampleDelta
from octavo.text.tokenizer import Tokenizer

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": true}'


class Played:
    """A generation whose pieces a test puts in; an exception ends it."""

    def __init__(self) -> None:
        self._pieces: list[GenerateChunk | OctavoError] = []
        self._heard: Callable[[], None] = lambda: None
        self.cancelled = False

    def listen(self, heard: Callable[[], None]) -> None:
        self._heard = heard

    def put(self, piece: GenerateChunk | OctavoError) -> None:
        self._pieces.append(piece)
        self._heard()

    def take(self) -> GenerateChunk | None:
        piece = self._pieces.pop(0) if self._pieces else None
        if isinstance(piece, OctavoError):
            raise piece
        return piece

    def cancel(self) -> None:
        if not self.cancelled:
            self.cancelled = True
            self.put(Cancelled("Request was cancelled"))


def chat() -> Answer:
    return ChatAnswer(read_chat(BODY), "r", 0, AnswerFormat(Tokenizer(byte_tokenizer()), None, None))


def responses() -> Answer:
    return ResponsesAnswer(
        read_responses(b'{"model": "m", "input": "Hi", "stream": true}'),
        "r",
        0,
        AnswerFormat(Tokenizer(byte_tokenizer()), None, None),
    )


@asynccontextmanager
async def reading(
    played: Played, words: Callable[[], Answer] = chat
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """What a client reads of a stream that answers with what is played."""

    async def answer(_: Request) -> Response:
        return stream.AnswerStream(words(), played, lambda error: error)

    taken = listener("127.0.0.1", 0)
    server = listen.HttpServer(Starlette(routes=[Route("/", answer)]), taken)
    reader, writer = await asyncio.open_connection(*taken.getsockname())
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(20):
        yield reader, writer
    writer.close()
    await server.close()


def piece(text: str) -> GenerateChunk:
    return GenerateChunk([SampleDelta(text, [1])], False, [[1]])


def test_a_long_silence_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "KEEP_ALIVE", 0.1)
    played = Played()

    async def run() -> None:
        async with reading(played) as (reader, _):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            for _ in range(2):
                await reader.readuntil(b": keep-alive\n\n")
            played.put(piece("a"))
            assert b"keep-alive" not in await reader.readuntil(b'"content":"a"')
            await reader.readuntil(b": keep-alive\n\n")
            played.put(EngineDead("The engine is gone."))
            rest = await reader.readuntil(b"data: [DONE]\n\n")
            assert b'data: {"error":{"message":"The engine is gone.","type":"server_error","param":null,"code":null}}\n\n' in rest

    asyncio.run(run())
    assert played.cancelled


def test_a_response_that_fails_says_so_in_its_last_event() -> None:
    played = Played()

    async def run() -> bytes:
        async with reading(played, responses) as (reader, _):
            played.put(piece("a"))
            played.put(EngineDead("The engine is gone."))
            return await reader.readuntil(b"0\r\n\r\n")

    said = asyncio.run(run())
    assert re.findall(rb"event: (\S+)\n", said)[-3:] == [b"response.output_text.delta", b"error", b"response.failed"]
    assert b'"error":{"code":"server_error","message":"The engine is gone."}' in said.split(b"event: response.failed")[1]


def test_what_fails_before_anything_was_said_has_a_status_of_its_own() -> None:
    played = Played()

    async def run() -> None:
        async with reading(played) as (reader, _):
            played.put(Overloaded("Exceeds maximum queue size"))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 429 ")
            assert b"retry-after: 1\r\n" in head

    asyncio.run(run())


def test_a_client_that_leaves_in_silence_ends_the_generation() -> None:
    played = Played()

    async def run() -> None:
        async with reading(played) as (_, writer):
            await asyncio.sleep(0.1)
            assert not played.cancelled
            writer.close()
            while not played.cancelled:
                await asyncio.sleep(0.01)

    asyncio.run(run())
