"""How our errors read to OpenAI's clients over HTTP: the status code, the body and the headers that they expect."""

from starlette.responses import Response

from octavo.errors import ErrorKind, OctavoError
from octavo.protocol.openai.errors import error_body, no_such_route
from octavo.protocol.statuses import OPENAI

# Seconds; OpenAI's clients wait that long before they try again.
RETRY_AFTER = {ErrorKind.OVERLOADED: "1", ErrorKind.ENGINE_DEAD: "5", ErrorKind.DRAINING: "5"}
_PREFIXES = ("/v1/", "/openai/", "/tokenize", "/detokenize")


def speaks_openai(path: str) -> bool:
    """Whether a request to ``path`` is to be answered in this dialect, whatever the answer is."""
    return path.startswith(_PREFIXES)


def refusal(error: OctavoError) -> Response:
    """The reply to a request that failed with ``error``."""
    headers = {"Retry-After": RETRY_AFTER[error.kind]} if error.kind in RETRY_AFTER else None
    return Response(error_body(error), OPENAI[error.kind], headers, "application/json")


def no_route(method: str, path: str, status: int, headers: dict[str, str]) -> Response:
    """The reply to a request to a path or with a method that does not exist."""
    if status == 404:
        body = no_such_route(f"Invalid URL ({method} {path})")
    else:
        body = no_such_route(f"Not allowed to {method} on {path}.", "method_not_supported")
    return Response(body, status, headers, "application/json")
