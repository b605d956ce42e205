"""The routes that say what is here: models and their tokens, health, version."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from octavo.errors import NotFound, shown
from octavo.protocol.openai.errors import FieldError, about_prompt
from octavo.protocol.openai.models import ServedModel, write_model, write_models
from octavo.protocol.openai.responses import read_responses
from octavo.protocol.openai.tokens import read_detokenize, read_tokenize, write_input_tokens, write_text, write_tokens
from octavo.serving.http.body import read_body
from octavo.serving.identity import VERSION
from octavo.serving.models import Models, Route
from octavo.text.admission import BadPrompt

JSON = "application/json"


def find(models: Models, name: str) -> Route:
    """The newest version of a model that is ready. Raises ``NotFound`` in the dialect's words."""
    try:
        return models.find(name, "")
    except NotFound:
        raise NotFound(f"The model '{shown(name)}' does not exist.") from None


class Inventory:
    """What can be asked without asking a model."""

    def __init__(self, models: Models, limit: int) -> None:
        """Tell of ``models``; a body has at most ``limit`` bytes."""
        self._models, self._limit = models, limit

    async def health(self, _: Request) -> Response:
        """``/health``: 200 while requests are answered."""
        return Response(status_code=200 if self._models.ready and not self._models.exiting else 503)

    async def version(self, _: Request) -> Response:
        """``/version``."""
        return Response(msgspec.json.encode({"version": VERSION}), media_type=JSON)

    async def models(self, _: Request) -> Response:
        """``/v1/models``: those that answer."""
        names = self._models.served_names()
        return Response(write_models(_served(find(self._models, name), name) for name in names), media_type=JSON)

    async def model(self, request: Request) -> Response:
        """``/v1/models/NAME``."""
        name = request.path_params["model"]
        route = find(self._models, name)
        self._models.engine(route)
        return Response(write_model(_served(route, name)), media_type=JSON)

    async def tokenize(self, request: Request) -> Response:
        """``/v1/tokenize``."""
        body = read_tokenize(await read_body(request, self._limit))
        engine = self._models.engine(find(self._models, body.model))
        try:
            token_ids = await engine.tokenize(body.text(), body.add_special_tokens is not False)
        except BadPrompt as error:
            raise about_prompt(error, "messages" if body.prompt is None else "prompt") from None
        texts = [engine.tokenizer.token_text(token_id) for token_id in token_ids] if body.return_token_strs else None
        return Response(write_tokens(token_ids, engine.binding.info.max_model_len, texts), media_type=JSON)

    async def input_tokens(self, request: Request) -> Response:
        """``/v1/responses/input_tokens``: how many tokens the prompt of a response would have."""
        body = read_responses(await read_body(request, self._limit))
        engine = self._models.engine(find(self._models, body.model))
        try:
            token_ids = await engine.tokenize(body.as_conversation(engine.format), False)
        except BadPrompt as error:
            raise about_prompt(error, body.PROMPT) from None
        return Response(write_input_tokens(len(token_ids)), media_type=JSON)

    async def detokenize(self, request: Request) -> Response:
        """``/v1/detokenize``, of as many tokens as the model can have in a request."""
        body = read_detokenize(await read_body(request, self._limit))
        engine = self._models.engine(find(self._models, body.model))
        info = engine.binding.info
        if len(body.tokens) > info.max_model_len:
            raise FieldError(f"tokens must hold at most {info.max_model_len} token ids.", "tokens", "array_above_max_length")
        if body.tokens and not 0 <= min(body.tokens) <= max(body.tokens) < info.vocab_size:
            text = f"tokens must hold token ids between 0 and {info.vocab_size - 1}, the model's vocabulary."
            raise FieldError(text, "tokens", "invalid_value")
        return Response(write_text(engine.tokenizer.decode(body.tokens)), media_type=JSON)


def _served(route: Route, name: str) -> ServedModel:
    assert route.engine is not None
    binding = route.engine.binding
    return ServedModel(name, binding.created, binding.info.max_model_len)
