"""What a stream says while there is nothing to tell, and how it ends when something goes wrong; the generation is played."""

import asyncio
import re

import pytest
from played import Played, piece, reading
from tiny import byte_tokenizer

from octavo.errors import EngineDead, Overloaded
from octavo.protocol.openai.dialects import Answer
from octavo.protocol.openai.responses import read_responses
from octavo.protocol.openai.responses_answer import ResponsesAnswer
from octavo.serving.http import events
from octavo.text.answer_format import AnswerFormat
from octavo.text.tokenizer import Tokenizer


def responses() -> Answer:
    return ResponsesAnswer(
        read_responses(b'{"model": "m", "input": "Hi", "stream": true}'),
        "r",
        0,
        AnswerFormat(Tokenizer(byte_tokenizer()), None, None),
    )


def test_a_long_silence_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE", 0.1)
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
