"""Handlers that need no more than a function: ``Unary``, one message in and one out, and ``Conversation``, one out for each."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from octavo.serving.http2.call import Call
from octavo.serving.http2.status import CallRefused, Status

log = logging.getLogger(__name__)


class Unary:
    """Has ``answer`` give the reply to the call's one message, in a task of its own; what it raises but ``CallRefused`` is a bug.

    ``ended`` is called when the call is over.
    """

    def __init__(self, call: Call, answer: Callable[[bytes, Call], Awaitable[bytes]], ended: Callable[[], None]) -> None:
        """Nothing has come."""
        self._call, self._answer, self._ended = call, answer, ended
        self._message: bytes | None = None
        self._task: asyncio.Task[None] | None = None

    def receive(self, message: bytes) -> None:
        """The message."""
        if self._message is not None:
            raise CallRefused(Status.INTERNAL, "This method takes one message, and got more.")
        self._message = message
        self._call.keep(len(message))

    def receive_end(self) -> None:
        """There are no more."""
        if self._message is None:
            raise CallRefused(Status.INTERNAL, "This method takes one message, and got none.")
        self._task = asyncio.ensure_future(self._run(self._message))
        self._message = None
        self._call.keep(0)

    def writable(self) -> None:
        """The reply is all there is to write."""

    def closed(self) -> None:
        """Nobody wants the reply any more."""
        self._message = None
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
        self._ended()

    async def _run(self, message: bytes) -> None:
        status, text = Status.OK, ""
        try:
            reply = await self._answer(message, self._call)
        except CallRefused as refused:
            status, text = refused.status, str(refused)
        except asyncio.CancelledError:
            if self._task is None:
                raise
            status, text = Status.UNAVAILABLE, "What this call waited for was cancelled within the server."
        except Exception:
            log.exception("A call has met a bug")
            status, text = Status.UNKNOWN, "An internal error has ended this call."
        self._task = None
        if status is Status.OK:
            self._call.write(reply)
        self._call.end(status, text)


class Conversation:
    """Writes what ``answer`` says to each message, and reads no further while that is not on its way."""

    def __init__(self, call: Call, answer: Callable[[bytes], bytes]) -> None:
        """Nothing has come."""
        self._call, self._answer = call, answer

    def receive(self, message: bytes) -> None:
        """A message."""
        self._call.write(self._answer(message))
        if not self._call.ready:
            self._call.pause()

    def receive_end(self) -> None:
        """There are no more."""
        self._call.end()

    def writable(self) -> None:
        """Read on."""
        self._call.resume()

    def closed(self) -> None:
        """There is nothing to let go."""
