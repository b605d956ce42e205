"""Answers to a client that may go away: as server-sent events, or whole. Either way their source ends with the client."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from octavo.errors import OctavoError
from octavo.serving.eager import run_eagerly
from octavo.serving.http.direct import direct
from octavo.serving.http.errors import visible
from octavo.serving.services.infer import Chunks
from octavo.text.request import GenerateChunk

log = logging.getLogger(__name__)
EVENT_STREAM = "text/event-stream; charset=utf-8"
# Seconds without an event after which a comment is sent, so that no proxy takes a long prefill for a dead connection.
KEEP_ALIVE = 10.0
COMMENT = b": keep-alive\n\n"
_HEADERS = [(b"content-type", EVENT_STREAM.encode()), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


class Words(Protocol):
    """What a stream says."""

    def piece(self, chunk: GenerateChunk) -> bytes:
        """The events that tell of ``chunk``; there may be nothing to tell."""

    def failure(self, error: OctavoError) -> bytes:
        """The events that end a stream which has begun."""

    def refusal(self, error: OctavoError) -> Response:
        """The reply in place of a stream which has not."""


class EventStream(Response):
    """A reply that ends its generation when the client is gone. No task for an event, and no coroutine but for the first and last.

    It begins with the first event or the first sign of life (``comment``, nothing if there is to be none); what fails before
    that is answered with a status of its own. What a turn of the event loop brings is said at its end, in one write. Nothing is
    taken of the generation while a write waits for the client, so one that does not read makes nothing here grow.
    """

    def __init__(self, words: Words, generation: Chunks, comment: bytes = b"") -> None:
        """``words`` words what ``generation`` makes."""
        super().__init__()
        self._words, self._generation, self._comment = words, generation, comment
        self._started = self._sending = self._last = False
        self._quiet = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything."""
        loop = asyncio.get_running_loop()
        self._asgi, self._direct = (scope, receive, send), direct(scope)
        self._ended: asyncio.Future[None] = loop.create_future()
        self._beat = loop.call_later(KEEP_ALIVE, self._stay_alive) if self._comment else None
        watch = asyncio.ensure_future(when_gone(receive, self._generation.cancel))
        self._generation.listen(partial(self._direct.turn.work, self._speak))
        try:
            self._speak()
            await self._ended
        finally:
            self._last = True
            if self._beat is not None:
                self._beat.cancel()
            watch.cancel()
            self._generation.cancel()

    def _speak(self) -> None:
        """Send what is new, unless something is on its way."""
        if self._sending or self._last:
            return
        if self._direct.full:
            self._run(self._direct.drained())
            return
        try:
            chunk = self._generation.take()
            if chunk is None:
                return
            events = self._words.piece(chunk)
        except Exception as error:
            self._fail(visible(error))
            return
        if events or chunk.final:
            self._tell(events, chunk.final)

    def _fail(self, error: OctavoError) -> None:
        if self._started:
            self._tell(self._words.failure(error), last=True)
        else:
            self._last, self._quiet = True, False
            self._run(self._words.refusal(error)(*self._asgi))

    def _tell(self, events: bytes, last: bool) -> None:
        self._last, self._quiet = last, False
        if last or not self._started:
            self._run(self._send(events, last))
            return
        self._direct.write(events)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._sending = True
        run_eagerly(work, self._sent)

    async def _send(self, events: bytes, last: bool) -> None:
        send = self._asgi[2]
        if not self._started:
            self._started = True
            self._direct.begin()
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        if events:
            self._direct.write(events)
        if last:
            self._direct.flush()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _sent(self, error: BaseException | None) -> None:
        self._sending = False
        if (error is not None or self._last) and not self._ended.done():
            self._ended.set_result(None)
        if error is not None:
            log.error("An event could not be written.", exc_info=error)
        else:
            self._speak()

    def _stay_alive(self) -> None:
        if self._quiet and not (self._sending or self._direct.full):
            self._tell(self._comment, last=False)
        self._quiet = True
        self._beat = asyncio.get_running_loop().call_later(KEEP_ALIVE, self._stay_alive)


async def whole_of(receive: Receive, answer: Chunks) -> GenerateChunk:
    """All of ``answer``, unless the client of a request that is wholly read goes away before it is there."""
    watch = asyncio.ensure_future(when_gone(receive, answer.cancel))
    try:
        return await anext(answer)
    finally:
        watch.cancel()
        answer.cancel()


async def when_gone(receive: Receive, stop: Callable[[], None]) -> None:
    """Call ``stop`` when the client of a request that is wholly read is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    stop()
