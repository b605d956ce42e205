"""``ModelStreamInfer``: many requests at once on one stream, their messages interleaved. No task per request or message."""

import asyncio
import logging
from collections import deque
from functools import partial

import grpc

from octavo.errors import Draining, OctavoError
from octavo.protocol.triton_reply import is_rejection, stream_error
from octavo.serving.eager import run_eagerly
from octavo.serving.grpc.errors import code_of, status_text
from octavo.serving.grpc.handlers import Context, headers_of, parse, visible
from octavo.serving.models import SHUTTING_DOWN, Models
from octavo.serving.services.infer import Answer, InferService, worded
from octavo.wire import pb

RPC = "ModelStreamInfer"
ERROR_AS_STATUS = "triton_grpc_error"
log = logging.getLogger(__name__)


class OpenRequest:
    """A request that is not answered to the end: it has an ``answer``, or an ``error`` from its beginning.

    ``in_line``: whether the stream will look for its next message without being told. ``ended``: its last was taken.
    """

    __slots__ = ("answer", "ended", "error", "id", "in_line", "model")

    def __init__(self) -> None:
        """Nothing is known of it yet."""
        self.id = self.model = ""
        self.answer: Answer | None = None
        self.error: Exception | None = None
        self.in_line = self.ended = False

    def close(self) -> None:
        """Nobody wants the rest."""
        if self.answer is not None:
            self.answer.generation.cancel()


class InferStream:
    """One open stream.

    At most ``limit`` requests are open at once: the stream is not read further until one of them has ended. A message is
    written when the one before it is on its way; what an engine makes meanwhile is merged in its generation, and cancelled
    beyond what the stream may leave unread, so a client that does not read makes nothing here grow.

    ``_line`` holds the requests that may have a message; ``_sending`` is the one whose message is on its way. Once ``_silent``,
    no message is begun any more.
    """

    def __init__(self, service: InferService, models: Models, context: Context, limit: int) -> None:
        """A stream that nothing was read from."""
        self._service, self._models, self._context = service, models, context
        self._error_as_status = (ERROR_AS_STATUS, "true") in (context.invocation_metadata() or ())
        self._backlog, self._headers = service.backlog(), headers_of(context)
        self._room = asyncio.Semaphore(limit)
        self._open: set[OpenRequest] = set()
        self._line: deque[OpenRequest] = deque()
        self._sending: OpenRequest | None = None
        self._silent = self._half_closed = False
        self._changed = asyncio.Event()
        self._failed: asyncio.Future[OctavoError] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Serve until the client has sent everything and has every answer. Cancelled when the client is gone."""
        ends: list[asyncio.Future[OctavoError] | asyncio.Task[OctavoError | None]] = [
            asyncio.ensure_future(self._read()),
            asyncio.ensure_future(self._shut_down()),
            self._failed,
        ]
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            # Whoever has sent everything may be done in the same moment in which its last request fails.
            error = (self._failed if self._failed in done else next(iter(done))).result()
            self._silent = True
            while self._sending is not None:  # no status can be sent while a message is on its way
                await self._change()
        finally:
            self._silent = True
            for end in ends:
                end.cancel()
            for request in self._open:
                request.close()
        if error is not None:
            await self._context.abort(code_of(error, RPC), status_text(error))

    async def _read(self) -> None:
        """Begin requests as they come, then wait for the last of them."""
        while True:
            await self._room.acquire()
            data = await self._context.read()
            if data is grpc.aio.EOF:
                self._half_closed = True
                break
            self._begin(data)
        await self._all_closed()

    async def _shut_down(self) -> OctavoError | None:
        """Once the server is exiting, wait until no request is open. A client that has sent everything then has every answer."""
        while not self._models.exiting:
            await self._models.news.wait()
        await self._all_closed()
        return None if self._half_closed else Draining(SHUTTING_DOWN)

    async def _all_closed(self) -> None:
        while self._open:
            await self._change()

    async def _change(self) -> None:
        """Wait until a request was closed or a message is out."""
        self._changed.clear()
        await self._changed.wait()

    def _begin(self, data: bytes) -> None:
        request = OpenRequest()
        self._open.add(request)
        try:
            message = parse(pb.ModelInferRequest, data)
            request.id, request.model = message.id, message.model_name
            request.answer = self._service.begin(message, unary=False, backlog=self._backlog, headers=self._headers)
            request.answer.generation.listen(partial(self._hear, request))
        except Exception as error:
            request.error = error
        self._hear(request)

    def _hear(self, request: OpenRequest) -> None:
        """There may be a message of ``request``."""
        if not request.in_line:
            request.in_line = True
            self._line.append(request)
            self._speak()

    def _speak(self) -> None:
        """Write the next message, unless one is on its way."""
        while self._sending is None and self._line and not self._silent:
            request = self._line.popleft()
            message = self._next_message(request)
            if message is not None:
                self._sending = request
                run_eagerly(self._context.write(message), self._sent)
            elif request.ended:
                self._close(request)
            else:
                request.in_line = False

    def _sent(self, error: BaseException | None) -> None:
        request, self._sending = self._sending, None
        assert request is not None
        if error is not None:
            self._lose_client(error)
        elif request.ended:
            self._close(request)
        else:
            self._line.append(request)
        self._speak()
        if self._silent:
            self._changed.set()

    def _next_message(self, request: OpenRequest) -> bytes | None:
        """What ``request`` has to say now, if anything."""
        try:
            if request.answer is None:
                raise request.error or AssertionError("neither answered nor refused")
            chunk = request.answer.generation.take()
            if chunk is None:
                return None
            request.ended = chunk.final
            return request.answer.reply.streamed(chunk)
        except Exception as error:
            request.ended = True
            return self._failure(request, visible(error))

    def _failure(self, request: OpenRequest, error: OctavoError) -> bytes | None:
        """The message of a request that failed; None if the client wants the stream to end by a model's errors."""
        error = worded(error, request.id)
        if not self._error_as_status or is_rejection(error):
            return stream_error(error, request.id, request.model).SerializeToString()
        if not self._failed.done():
            self._failed.set_result(error)
        return None

    def _lose_client(self, error: BaseException) -> None:
        """Nobody reads the stream any more; its handler is about to be cancelled."""
        if not isinstance(error, grpc.aio.BaseError | asyncio.CancelledError):
            log.error("A message of a stream could not be written.", exc_info=error)
        self._silent = True
        self._line.clear()
        for request in list(self._open):
            self._close(request)

    def _close(self, request: OpenRequest) -> None:
        request.close()
        self._open.discard(request)
        self._room.release()
        self._changed.set()
