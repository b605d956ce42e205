"""Answers to a client that may go away: as server-sent events, or whole. Either way their source ends with the client."""

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from octavo.serving.services.infer import Chunks
from octavo.text.request import GenerateChunk

EVENT_STREAM = b"text/event-stream; charset=utf-8"


class EventStream(Response):
    """Sends ``events``, (status, JSON) pairs; the first one's status is the reply's. ``stop`` is called in any case."""

    def __init__(self, events: AsyncIterator[tuple[int, bytes]], stop: Callable[[], None]) -> None:
        """Nothing is sent before the first event."""
        super().__init__()
        self._events, self._stop = events, stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events; an event is taken when the one before it is on its way."""
        watch = asyncio.ensure_future(when_gone(receive, self._stop))
        started = False
        try:
            async for status, event in self._events:
                if not started:
                    headers = [(b"content-type", EVENT_STREAM), (b"cache-control", b"no-cache")]
                    await send({"type": "http.response.start", "status": status, "headers": headers})
                    started = True
                await send({"type": "http.response.body", "body": b"data: " + event + b"\n\n", "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            watch.cancel()
            self._stop()


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
