"""``ModelStreamInfer``: many requests at once on one stream, their messages interleaved. No task per stream, request or message."""

import asyncio
from collections import deque
from collections.abc import Callable

from octavo.errors import Draining, OctavoError
from octavo.protocol.triton_reply import is_rejection, stream_error
from octavo.serving.grpc.errors import code_of, status_text
from octavo.serving.grpc.handlers import parse, visible
from octavo.serving.http2.call import Call
from octavo.serving.models import SHUTTING_DOWN, Models
from octavo.serving.services.infer import Answer, InferService, worded
from octavo.serving.traffic import Traffic
from octavo.wire import pb

RPC = "ModelStreamInfer"
ERROR_AS_STATUS = "triton_grpc_error"


class OpenRequest:
    """A request that is not answered to the end: it has an ``answer``, or an ``error`` from its beginning.

    ``in_line``: whether the stream will look for its next message without being told. ``ended``: its last was taken.
    """

    __slots__ = ("_stream", "answer", "ended", "error", "id", "in_line", "model")

    def __init__(self, stream: "InferStream") -> None:
        """Nothing is known of it yet."""
        self._stream = stream
        self.id = self.model = ""
        self.answer: Answer | None = None
        self.error: Exception | None = None
        self.in_line = self.ended = False

    def hear(self) -> None:
        """There may be a message of it."""
        if not self.in_line:
            self._stream.line_up(self)

    def close(self) -> None:
        """Nobody wants the rest."""
        if self.answer is not None:
            self.answer.generation.cancel()


class InferStreams:
    """The open streams of a front end; once the server is exiting they hear of it together."""

    def __init__(self, service: InferService, models: Models, limit: int, traffic: Traffic) -> None:
        """At most ``limit`` requests are open at once on each stream."""
        self._service, self._models, self._limit, self._traffic = service, models, limit, traffic
        self._open: dict[InferStream, Callable[[], None]] = {}
        self._waiting = asyncio.ensure_future(self._wait_for_exit())

    def open(self, call: Call) -> "InferStream":
        """Another one."""
        stream = InferStream(self._service, self._models, call, self._limit, self._closed)
        self._open[stream] = self._traffic.entered()
        if self._models.exiting:
            call.at_end_of_turn(stream.shut_down)
        return stream

    def _closed(self, stream: "InferStream") -> None:
        self._open.pop(stream)()

    async def _wait_for_exit(self) -> None:
        while not self._models.exiting:
            await self._models.news.wait()
        for stream in list(self._open):
            stream.shut_down()


class InferStream:
    """One open stream, until the client has sent everything and has every answer, or is gone.

    At most ``limit`` requests are open at once: the stream is not read further until one of them has ended. Messages are
    written at the end of a turn of the loop, and only while the ones before are on their way; what an engine makes meanwhile is
    merged in its generation, and cancelled beyond what the stream may leave unread, so a client that does not read makes nothing
    here grow.

    ``_line`` holds the requests that may have a message. Once ``_over``, none is begun any more.
    """

    __slots__ = (
        "_backlog",
        "_call",
        "_closed",
        "_due",
        "_error_as_status",
        "_half_closed",
        "_limit",
        "_line",
        "_models",
        "_open",
        "_over",
        "_paused",
        "_service",
    )

    def __init__(
        self, service: InferService, models: Models, call: Call, limit: int, closed: Callable[["InferStream"], None]
    ) -> None:
        """A stream that nothing was read from; ``closed`` is called when it is over."""
        self._service, self._models, self._call, self._limit, self._closed = service, models, call, limit, closed
        self._error_as_status = call.header(ERROR_AS_STATUS) == "true"
        self._backlog = service.backlog()
        self._open: set[OpenRequest] = set()
        self._line: deque[OpenRequest] = deque()
        self._over = self._half_closed = self._due = self._paused = False

    def receive(self, message: bytes) -> None:
        """Begin a request."""
        request = OpenRequest(self)
        self._open.add(request)
        try:
            parsed = parse(pb.ModelInferRequest, message)
            request.id, request.model = parsed.id, parsed.model_name
            request.answer = self._service.begin(parsed, unary=False, backlog=self._backlog, headers=self._call.header)
            request.answer.generation.listen(request.hear)
        except Exception as error:
            request.error = error
        request.hear()
        if len(self._open) >= self._limit:
            self._paused = True
            self._call.pause()

    def receive_end(self) -> None:
        """The client has sent everything."""
        self._half_closed = True
        self._finish_if_done()

    def shut_down(self) -> None:
        """The server is exiting: end once no request is open. A client that has sent everything then has every answer."""
        self._finish_if_done()

    def writable(self) -> None:
        """What was held up may go on."""
        if self._line and not self._due:
            self._due = True
            self._call.at_end_of_turn(self._speak)

    def closed(self) -> None:
        """The stream is over; nobody wants what is open."""
        self._over = True
        self._line.clear()
        for request in self._open:
            request.close()
        self._open.clear()
        self._closed(self)

    def line_up(self, request: OpenRequest) -> None:
        """There may be a message of ``request``, which is not in line yet."""
        if not self._over:
            request.in_line = True
            self._line.append(request)
            if not self._due:
                self._due = True
                self._call.at_end_of_turn(self._speak)

    def _speak(self) -> None:
        """Write what there is, a message of each request in turn, while the client takes it."""
        self._due = False
        call, line = self._call, self._line
        while line and call.ready and not self._over:
            request = line.popleft()
            if request.ended:
                continue
            request.in_line = False
            message = self._next_message(request)
            if message is not None:
                call.write(message)
            if request.ended:
                self._close(request)

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
        self._end(error)
        return None

    def _close(self, request: OpenRequest) -> None:
        request.close()
        self._open.discard(request)
        self._finish_if_done()
        if self._paused and not self._over:
            self._paused = False
            self._call.resume()

    def _finish_if_done(self) -> None:
        if self._open or self._over:
            return
        if self._half_closed:
            self._end(None)
        elif self._models.exiting:
            self._end(Draining(SHUTTING_DOWN))

    def _end(self, error: OctavoError | None) -> None:
        """The last thing that is sent."""
        self._over = True
        if error is None:
            self._call.end()
        else:
            self._call.end(code_of(error, RPC), status_text(error))
