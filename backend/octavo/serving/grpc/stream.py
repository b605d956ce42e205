"""``ModelStreamInfer``: many requests at once on one stream, each its own task, their messages interleaved."""

import asyncio
import contextlib

import grpc

from octavo.errors import Draining, OctavoError
from octavo.protocol.triton_reply import is_rejection, stream_error
from octavo.serving.grpc.errors import code_of, status_text
from octavo.serving.grpc.handlers import Context, headers_of, parse, visible
from octavo.serving.models import SHUTTING_DOWN, Models
from octavo.serving.services.infer import InferService, worded
from octavo.wire import pb

RPC = "ModelStreamInfer"
ERROR_AS_STATUS = "triton_grpc_error"


class ClientGone(Exception):
    """Nobody reads the stream any more; its handler is about to be cancelled."""


class InferStream:
    """One open stream.

    At most ``limit`` requests are open at once: the stream is not read further until one of them has ended. A message is
    written when the one before it is on its way; what an engine makes meanwhile is merged in its generation, and cancelled
    beyond what the stream may leave unread, so a client that does not read makes nothing here grow.
    """

    def __init__(self, service: InferService, models: Models, context: Context, limit: int) -> None:
        """A stream that nothing was read from."""
        self._service, self._models, self._context = service, models, context
        self._error_as_status = (ERROR_AS_STATUS, "true") in (context.invocation_metadata() or ())
        self._backlog, self._headers = service.backlog(), headers_of(context)
        self._room = asyncio.Semaphore(limit)
        self._writing = asyncio.Lock()
        self._half_closed = False
        self._open: set[asyncio.Task[None]] = set()
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
            if error is not None:
                # No status can be sent while a message is on its way; from here on none is.
                await self._writing.acquire()
        finally:
            for task in (*ends, *self._open):
                task.cancel()
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
            task = asyncio.ensure_future(self._serve(data))
            self._open.add(task)
            task.add_done_callback(self._close)
        while self._open:
            await asyncio.wait(self._open)

    async def _shut_down(self) -> OctavoError | None:
        """Once the server is exiting, wait until no request is open. A client that has sent everything then has every answer."""
        while not self._models.exiting:
            await self._models.news.wait()
        while self._open:
            await asyncio.wait(self._open)
        return None if self._half_closed else Draining(SHUTTING_DOWN)

    def _close(self, task: "asyncio.Task[None]") -> None:
        self._open.discard(task)
        self._room.release()

    async def _serve(self, data: bytes) -> None:
        request = pb.ModelInferRequest()
        try:
            request = parse(pb.ModelInferRequest, data)
            await self._answer(request)
        except ClientGone:
            return
        except Exception as error:
            with contextlib.suppress(ClientGone):
                await self._fail(request, visible(error))

    async def _answer(self, request: pb.ModelInferRequest) -> None:
        answer = self._service.begin(request, unary=False, backlog=self._backlog, headers=self._headers)
        try:
            async for chunk in answer.generation:
                if (message := answer.reply.streamed(chunk)) is not None:
                    await self._write(message)
        finally:
            answer.generation.cancel()

    async def _fail(self, request: pb.ModelInferRequest, error: OctavoError) -> None:
        """Tell of a request that failed: in a message, or by ending the stream if the client wants that of a model's errors."""
        error = worded(error, request.id)
        if not self._error_as_status or is_rejection(error):
            await self._write(stream_error(error, request.id, request.model_name))
        elif not self._failed.done():
            self._failed.set_result(error)

    async def _write(self, message: pb.ModelStreamInferResponse) -> None:
        async with self._writing:
            try:
                await self._context.write(message.SerializeToString())
            except grpc.aio.BaseError:
                raise ClientGone from None
