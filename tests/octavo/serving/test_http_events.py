"""How a stream of events gets to an HTTP client: framed as its version has it, as fast as it reads; the generation is played."""

import asyncio

import pytest
from played import REQUEST, Played, piece, playing, reading

from octavo.errors import EngineDead
from octavo.text.request import GenerateChunk, SampleDelta

LAST = GenerateChunk([SampleDelta("", [], "stop")], True, [[1]])
DONE = b"data: [DONE]\n\n"


def ended(*texts: str) -> Played:
    """An answer that is wholly there."""
    played = Played()
    for text in texts:
        played.put(piece(text))
    played.put(LAST)
    return played


async def chunks(reader: asyncio.StreamReader) -> list[bytes]:
    """The chunks of a body, each of which has to be of whole events."""
    found: list[bytes] = []
    while size := int(await reader.readline(), 16):
        found.append(await reader.readexactly(size))
        assert await reader.readexactly(2) == b"\r\n"
        assert found[-1].endswith(b"\n\n")
    assert await reader.readexactly(2) == b"\r\n"
    return found


@pytest.mark.parametrize("requests", [[REQUEST, REQUEST], [2 * REQUEST]], ids=["one after the other", "pipelined"])
def test_one_connection_has_one_answer_after_the_other(requests: list[bytes]) -> None:
    async def run() -> None:
        answers = iter("abcdef")
        async with playing(lambda: ended(next(answers), next(answers), next(answers))) as address:
            reader, writer = await asyncio.open_connection(*address)
            for number in range(2):
                for request in requests[number : number + 1]:
                    writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                assert b"\r\ntransfer-encoding: chunked\r\n" in head and b"connection:" not in head
                body = b"".join(await chunks(reader))
                assert body.endswith(DONE)
                expected = "abcdef"[3 * number : 3 * number + 3]
                assert [f'"content":"{text}"'.encode() in body for text in "abcdef"] == [text in expected for text in "abcdef"]
            writer.close()

    asyncio.run(run())


def test_a_client_of_http_1_0_gets_events_and_then_the_end() -> None:
    async def run() -> tuple[bytes, bytes]:
        played = Played()
        async with reading(played, request=b"GET / HTTP/1.0\r\n\r\n") as (reader, _):
            played.put(piece("a"))
            said = await reader.readuntil(b'"content":"a"')
            played.put(piece("b"))
            said += await reader.readuntil(b'"content":"b"')
            played.put(LAST)
            head, _, body = (said + await reader.read()).partition(b"\r\n\r\n")
            return head, body

    head, body = asyncio.run(run())
    assert b"\r\nconnection: close" in head and b"transfer-encoding" not in head
    assert all(event.startswith(b"data: {") for event in body.removesuffix(DONE).split(b"\n\n")[:-1])
    assert body.count(b"data: ") == 5 and body.endswith(DONE)


def test_head_has_no_events() -> None:
    async def run() -> bytes:
        async with reading(ended("a", "b"), request=REQUEST.replace(b"GET", b"HEAD")) as (reader, writer):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 404 ")
            return head

    assert b"content-type: text/event-stream; charset=utf-8\r\n" in asyncio.run(run())


def test_all_that_a_turn_of_the_loop_brings_is_said() -> None:
    async def run() -> bytes:
        played = Played()
        async with reading(played) as (reader, _):
            played.put(piece("a"))
            await reader.readuntil(b'"content":"a"')
            for text in "bc":
                played.put(piece(text))
            played.put(EngineDead("The engine is gone."))
            return await reader.readuntil(b"0\r\n\r\n")

    said = asyncio.run(run())
    assert said.index(b'"content":"b"') < said.index(b'"content":"c"') < said.index(b"The engine is gone.")


def test_nothing_is_taken_for_a_client_that_does_not_read() -> None:
    """A piece for each turn of the loop, more of them than all buffers of a connection hold."""
    size, count = 1 << 18, 200
    played = Played()

    async def run() -> None:
        async with reading(played) as (reader, _):
            for _ in range(count):
                played.put(piece("x" * size))
                await asyncio.sleep(0)
            played.put(LAST)
            assert played.waiting > count // 2
            await reader.readuntil(b"\r\n\r\n")
            said = b"".join(await chunks(reader))
            assert said.count(b"x" * size) == count and said.endswith(DONE)

    asyncio.run(run())


def test_a_client_that_leaves_without_reading_ends_the_generation() -> None:
    played = Played()

    async def run() -> None:
        async with reading(played) as (_, writer):
            for _ in range(200):
                played.put(piece("x" * (1 << 18)))
                await asyncio.sleep(0)
            writer.transport.abort()
            while not played.cancelled:
                await asyncio.sleep(0.01)

    asyncio.run(run())


def test_a_client_that_leaves_ends_the_generation_though_another_request_waits_behind_it() -> None:
    """Nothing is read of a connection on which one waits, so it is a write that shows it."""
    played = Played()

    async def run() -> None:
        async with reading(played, request=2 * REQUEST) as (reader, writer):
            played.put(piece("a"))
            await reader.readuntil(b'"content":"a"')
            writer.transport.abort()
            while not played.cancelled:
                played.put(piece("b"))
                await asyncio.sleep(0.01)

    asyncio.run(run())
