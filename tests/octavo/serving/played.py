"""An answer that a test plays: an HTTP server with one route, whose stream says what the test puts in."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tiny import byte_tokenizer

from octavo.errors import Cancelled, OctavoError
from octavo.protocol.openai.chat import read_chat
from octavo.protocol.openai.chat_answer import ChatAnswer
from octavo.protocol.openai.dialects import Answer
from octavo.serving.http import listen
from octavo.serving.http.events import COMMENT, EventStream
from octavo.serving.http.openai.generate import AnswerWords
from octavo.serving.ports import listener
from octavo.text.answer_format import AnswerFormat
from octavo.text.request import GenerateChunk, SampleDelta
from octavo.text.tokenizer import Tokenizer

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": true}'
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


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

    @property
    def waiting(self) -> int:
        """How many of them nobody has taken."""
        return len(self._pieces)

    def take(self) -> GenerateChunk | None:
        piece = self._pieces.pop(0) if self._pieces else None
        if self._pieces:
            self._heard()
        if isinstance(piece, OctavoError):
            raise piece
        return piece

    def cancel(self) -> None:
        if not self.cancelled:
            self.cancelled = True
            self.put(Cancelled("Request was cancelled"))


def chat() -> Answer:
    return ChatAnswer(read_chat(BODY), "r", 0, AnswerFormat(Tokenizer(byte_tokenizer()), None, None))


@asynccontextmanager
async def playing(play: Callable[[], Played], words: Callable[[], Answer] = chat) -> AsyncIterator[tuple[str, int]]:
    """The address of a server, whose every answer is one that ``play`` gives."""

    async def answer(_: Request) -> Response:
        return EventStream(AnswerWords(words(), lambda error: error), play(), COMMENT)

    taken = listener("127.0.0.1", 0)
    server = listen.HttpServer(Starlette(routes=[Route("/", answer)]), taken)
    async with asyncio.timeout(120):
        yield taken.getsockname()
    await server.close()


@asynccontextmanager
async def reading(
    played: Played, words: Callable[[], Answer] = chat, request: bytes = REQUEST
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """What a client reads of a stream that answers with what is played."""
    async with playing(lambda: played, words) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(request)
        yield reader, writer
        writer.close()


def piece(text: str) -> GenerateChunk:
    return GenerateChunk([SampleDelta(text, [1])], False, [[1]])
