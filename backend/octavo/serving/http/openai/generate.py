"""The routes that ask a model something: completions, chat completions and responses."""

import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from octavo.errors import OctavoError
from octavo.protocol.openai.dialects import CHAT, COMPLETIONS, RESPONSES, Answer, Asked, Dialect
from octavo.serving.http.body import read_body
from octavo.serving.http.events import COMMENT, EventStream, whole_of
from octavo.serving.http.openai.errors import refusal
from octavo.serving.http.openai.inventory import find
from octavo.serving.http.openai.request_ids import request_id
from octavo.serving.models import Models, Route
from octavo.serving.services.generate import GenerateService
from octavo.text.request import GenerateRequest


class AnswerWords:
    """What a stream says of ``answer``; ``named`` gives an error the field that it is about."""

    def __init__(self, answer: Answer, named: Callable[[OctavoError], OctavoError]) -> None:
        """Nothing is said."""
        self._answer, self._named = answer, named
        self.piece = answer.piece

    def failure(self, error: OctavoError) -> bytes:
        """The events that end a stream which has begun."""
        return self._answer.failure(self._named(error))

    def refusal(self, error: OctavoError) -> Response:
        """The reply in place of a stream which has not."""
        return refusal(self._named(error))


class GenerateEndpoints:
    """Whole answers and streams of the three routes."""

    def __init__(self, models: Models, limit: int, max_unread: int) -> None:
        """Serve ``models``; a body has at most ``limit`` bytes, and of a stream ``max_unread`` may be left unread."""
        self._models, self._limit = models, limit
        self._service = GenerateService(models, max_unread)

    async def completions(self, request: Request) -> Response:
        """``/v1/completions``."""
        return await self._answer(request, COMPLETIONS)

    async def chat(self, request: Request) -> Response:
        """``/v1/chat/completions``."""
        return await self._answer(request, CHAT)

    async def responses(self, request: Request) -> Response:
        """``/v1/responses``."""
        return await self._answer(request, RESPONSES)

    async def _answer(self, request: Request, dialect: Dialect) -> Response:
        body = dialect.read(await read_body(request, self._limit))
        name = request_id(request, body.request_id)
        route = find(self._models, body.model)
        backlog, headers = self._service.backlog(), request.headers.get
        try:
            generation = self._service.begin(route, lambda: self._request(route, body, name), backlog, headers)
            answer = dialect.answer(body, name, int(time.time()), self._models.engine(route).format)
            if body.stream:
                return EventStream(AnswerWords(answer, body.named), generation, COMMENT)
            return Response(answer.whole(await whole_of(request.receive, generation)), media_type="application/json")
        except OctavoError as error:
            raise body.named(error) from None

    def _request(self, route: Route, body: Asked, name: str) -> GenerateRequest:
        return body.request(route.name, route.version, name, self._models.engine(route).format)
