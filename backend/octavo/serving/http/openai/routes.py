"""Every route of the OpenAI API that this server has, under ``/v1`` and, as KServe's runtimes have them, ``/openai/v1``."""

from starlette.routing import Route

from octavo.serving.http.openai.errors import refusal
from octavo.serving.http.openai.generate import GenerateEndpoints
from octavo.serving.http.openai.inventory import Inventory
from octavo.serving.http.route import Handle, route
from octavo.serving.models import Models

BASES = ("/v1", "/openai/v1")


def openai_routes(models: Models, limit: int, max_unread: int) -> list[Route]:
    """Every route; a body has at most ``limit`` bytes, a stream at most ``max_unread`` that nobody reads.

    Each has to be in the table of ``groups``.
    """
    generate, inventory = GenerateEndpoints(models, limit, max_unread), Inventory(models, limit)
    return [
        route("/health", "GET", inventory.health, refusal),
        route("/version", "GET", inventory.version, refusal),
        *_under(BASES, "/models", "GET", inventory.models),
        *_under(BASES, "/models/{model:path}", "GET", inventory.model),
        *_under(BASES, "/completions", "POST", generate.completions),
        *_under(BASES, "/chat/completions", "POST", generate.chat),
        *_under(BASES, "/responses", "POST", generate.responses),
        *_under(BASES, "/responses/input_tokens", "POST", inventory.input_tokens),
        *_under(("", *BASES), "/tokenize", "POST", inventory.tokenize),
        *_under(("", *BASES), "/detokenize", "POST", inventory.detokenize),
    ]


def _under(bases: tuple[str, ...], path: str, method: str, handle: Handle) -> list[Route]:
    return [route(base + path, method, handle, refusal) for base in bases]
