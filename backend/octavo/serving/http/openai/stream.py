"""``AnswerStream``: one answer as server-sent events, with signs of life while there is nothing to tell."""

import asyncio
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from octavo.errors import OctavoError
from octavo.serving.http.errors import visible
from octavo.serving.http.events import EVENT_STREAM, when_gone
from octavo.serving.http.openai.errors import refusal
from octavo.text.generator import Generation
from octavo.text.request import GenerateChunk

# Seconds without an event after which a comment is sent, so that no proxy takes a long prefill for a dead connection.
KEEP_ALIVE = 10.0
_COMMENT = b": keep-alive\n\n"
_HEADERS = [(b"content-type", EVENT_STREAM), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


class Answer(Protocol):
    """Words an answer of one route."""

    def whole(self, chunk: GenerateChunk) -> bytes:
        """All of it, as a body."""

    def piece(self, chunk: GenerateChunk) -> bytes:
        """What is new of it, as events."""

    def failure(self, error: OctavoError) -> bytes:
        """The events that end it."""


class AnswerStream(Response):
    """A reply that ends its generation when the client is gone.

    It begins with the first event or the first sign of life; what fails before that is answered with a status of its own.
    """

    def __init__(self, answer: Answer, generation: Generation) -> None:
        """``answer`` words what ``generation`` makes."""
        super().__init__()
        self._answer, self._generation = answer, generation
        self._writing = asyncio.Lock()
        self._started = False
        self._quiet = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything; a piece is taken when the one before it is on its way."""
        beside = [
            asyncio.ensure_future(when_gone(receive, self._generation.cancel)),
            asyncio.ensure_future(self._stay_alive(send)),
        ]
        try:
            async for chunk in self._generation:
                events = self._answer.piece(chunk)
                if events or chunk.final:
                    await self._write(send, events, more=not chunk.final)
        except Exception as error:
            await self._fail(scope, receive, send, visible(error))
        finally:
            for task in beside:
                task.cancel()
            self._generation.cancel()

    async def _fail(self, scope: Scope, receive: Receive, send: Send, error: OctavoError) -> None:
        async with self._writing:
            started, self._started = self._started, True
            if not started:
                await refusal(error)(scope, receive, send)
        if started:
            await self._write(send, self._answer.failure(error), more=False)

    async def _write(self, send: Send, events: bytes, more: bool) -> None:
        async with self._writing:
            self._quiet = False
            if not self._started:
                self._started = True
                await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            await send({"type": "http.response.body", "body": events, "more_body": more})

    async def _stay_alive(self, send: Send) -> None:
        while True:
            self._quiet = True
            await asyncio.sleep(KEEP_ALIVE)
            if self._quiet:
                await self._write(send, _COMMENT, more=True)
