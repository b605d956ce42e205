"""``infer``, ``generate`` and ``generate_stream``: HTTP bodies to requests of ``InferService``, and its answers to bodies."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from octavo.errors import Draining, OctavoError
from octavo.protocol.generate import GenerateCall, details_of, read_generate, write_generate
from octavo.protocol.openai.sse import event
from octavo.protocol.rest import HEADER_LENGTH, header_length, read_infer, write_infer
from octavo.serving.http.body import chosen_encoding, deflated, read_body
from octavo.serving.http.errors import error_json, status_of, visible
from octavo.serving.http.events import EVENT_STREAM, EventStream, whole_of
from octavo.serving.models import Models, Route
from octavo.serving.services.core import SERVER_NOT_READY
from octavo.serving.services.infer import Answer, InferService, worded
from octavo.text.request import GenerateChunk
from octavo.text.tokenizer import Tokenizer
from octavo.wire import pb

JSON, BYTES = "application/json", "application/octet-stream"


class InferEndpoints:
    """The three routes that ask a model something. ``infer`` and ``generate`` answer whole, whatever ``stream`` says."""

    def __init__(self, models: Models, limit: int, max_unread: int) -> None:
        """Serve ``models``; a body has at most ``limit`` bytes, and of a stream ``max_unread`` may be left unread."""
        self._models, self._limit = models, limit
        self._service = InferService(models, max_unread)

    async def infer(self, request: Request) -> Response:
        """KServe v2 REST, with Triton's binary tensors."""
        route, version = self._find(request)
        body = await read_body(request, self._limit)
        json_length = header_length(request.headers.get(HEADER_LENGTH), len(body))
        call, binary = read_infer(body, json_length, route.name, version, len(route.config.input), self._models.limits)
        answer = self._begin(request, call, unary=True)
        data, json_length_out = write_infer(answer.reply.unary(await _whole(request, answer)), binary)
        headers = {} if json_length_out is None else {HEADER_LENGTH: str(json_length_out)}
        encoding = chosen_encoding(request.headers.get("accept-encoding", ""))
        if encoding is not None:
            headers["Content-Encoding"] = encoding
            data = deflated(data, encoding)
        return Response(data, headers=headers, media_type=JSON if json_length_out is None else BYTES)

    async def generate(self, request: Request) -> Response:
        """Triton's ``generate``: one JSON object."""
        call, tokenizer = await self._read_generate(request)
        answer = self._begin(request, call.request, unary=True)
        chunk = await _whole(request, answer)
        return Response(_generated(call, answer, chunk, tokenizer), media_type=JSON)

    async def generate_stream(self, request: Request) -> Response:
        """Triton's ``generate_stream``: the same as server-sent events, one for each piece of the answer."""
        call, tokenizer = await self._read_generate(request)
        answer = self._begin(request, call.request, unary=False)
        return EventStream(_Events(call, answer, tokenizer), answer.generation)

    def _find(self, request: Request) -> tuple[Route, str]:
        version = request.path_params.get("version", "")
        return self._models.find(request.path_params["model"], version), version

    async def _read_generate(self, request: Request) -> tuple[GenerateCall, Tokenizer]:
        route, version = self._find(request)
        call = read_generate(await read_body(request, self._limit), route.config, version, self._models.limits)
        self._refuse_if_exiting()
        return call, self._models.engine(route).tokenizer

    def _begin(self, request: Request, call: pb.ModelInferRequest, unary: bool) -> Answer:
        self._refuse_if_exiting()
        return self._service.begin(call, unary, self._service.backlog(), request.headers.get)

    def _refuse_if_exiting(self) -> None:
        if self._models.exiting:
            raise Draining(SERVER_NOT_READY)


async def _whole(request: Request, answer: Answer) -> GenerateChunk:
    try:
        return await whole_of(request.receive, answer.generation)
    except Exception as error:
        raise worded(visible(error), answer.call.id) from None


class _Events:
    """The events of an answer; one that fails is an event, too, with a status of its own if it is the first."""

    def __init__(self, call: GenerateCall, answer: Answer, tokenizer: Tokenizer) -> None:
        self._call, self._answer, self._tokenizer = call, answer, tokenizer

    def piece(self, chunk: GenerateChunk) -> bytes:
        return event(_generated(self._call, self._answer, chunk, self._tokenizer))

    def failure(self, error: OctavoError) -> bytes:
        return event(error_json(str(worded(error, self._answer.call.id))))

    def refusal(self, error: OctavoError) -> Response:
        return Response(self.failure(error), status_of(error, "generate_stream"), media_type=EVENT_STREAM)


def _generated(call: GenerateCall, answer: Answer, chunk: GenerateChunk, tokenizer: Tokenizer) -> bytes:
    members = write_generate(answer.reply.unary(chunk))
    if call.details:
        details = details_of(chunk, tokenizer.token_text, tokenizer.special_ids)
        members["details"] = details[0] if len(details) == 1 else details
    return msgspec.json.encode(members)
