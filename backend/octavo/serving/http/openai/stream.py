"""``AnswerStream``: one answer as server-sent events, with signs of life while there is nothing to tell."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from octavo.errors import OctavoError
from octavo.protocol.openai.dialects import Answer
from octavo.serving.eager import run_eagerly
from octavo.serving.http.errors import visible
from octavo.serving.http.events import EVENT_STREAM, when_gone
from octavo.serving.http.openai.errors import refusal
from octavo.text.generator import Generation

log = logging.getLogger(__name__)
# Seconds without an event after which a comment is sent, so that no proxy takes a long prefill for a dead connection.
KEEP_ALIVE = 10.0
_COMMENT = b": keep-alive\n\n"
_HEADERS = [(b"content-type", EVENT_STREAM), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


class AnswerStream(Response):
    """A reply that ends its generation when the client is gone. No task for an event: each is written in the turn that makes it.

    It begins with the first event or the first sign of life; what fails before that is answered with a status of its own.
    An event is taken when the one before it is on its way, so a client that does not read makes nothing here grow.
    """

    def __init__(self, answer: Answer, generation: Generation, named: Callable[[OctavoError], OctavoError]) -> None:
        """``answer`` words what ``generation`` makes; ``named`` gives an error the field that it is about."""
        super().__init__()
        self._answer, self._generation, self._named = answer, generation, named
        self._started = self._sending = self._last = False
        self._quiet = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything."""
        loop = asyncio.get_running_loop()
        self._asgi = scope, receive, send
        self._ended: asyncio.Future[None] = loop.create_future()
        self._beat = loop.call_later(KEEP_ALIVE, self._stay_alive)
        watch = asyncio.ensure_future(when_gone(receive, self._generation.cancel))
        self._generation.listen(self._speak)
        try:
            self._speak()
            await self._ended
        finally:
            self._last = True
            self._beat.cancel()
            watch.cancel()
            self._generation.cancel()

    def _speak(self) -> None:
        """Send what is new, unless something is on its way."""
        if self._sending or self._last:
            return
        try:
            chunk = self._generation.take()
            events = b"" if chunk is None else self._answer.piece(chunk)
        except Exception as error:
            self._fail(self._named(visible(error)))
            return
        if chunk is not None and (events or chunk.final):
            self._write(self._send(events, chunk.final), chunk.final)

    def _fail(self, error: OctavoError) -> None:
        if self._started:
            self._write(self._send(self._answer.failure(error), last=True), last=True)
        else:
            self._write(refusal(error)(*self._asgi), last=True)

    def _write(self, work: Coroutine[Any, Any, None], last: bool) -> None:
        self._sending, self._last, self._quiet = True, last, False
        run_eagerly(work, self._sent)

    async def _send(self, events: bytes, last: bool) -> None:
        send = self._asgi[2]
        if not self._started:
            self._started = True
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        await send({"type": "http.response.body", "body": events, "more_body": not last})

    def _sent(self, error: BaseException | None) -> None:
        self._sending = False
        if (error is not None or self._last) and not self._ended.done():
            self._ended.set_result(None)
        if error is not None:
            log.error("An event could not be written.", exc_info=error)
        else:
            self._speak()

    def _stay_alive(self) -> None:
        if self._quiet and not self._sending:
            self._write(self._send(_COMMENT, last=False), last=False)
        self._quiet = True
        self._beat = asyncio.get_running_loop().call_later(KEEP_ALIVE, self._stay_alive)
