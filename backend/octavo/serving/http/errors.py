"""How our errors read over HTTP: (kind, route) -> status code. The one table; nothing else in this transport names a code."""

import logging

import msgspec
from starlette.responses import Response

from octavo.errors import ErrorKind, OctavoError, internal

log = logging.getLogger(__name__)

STATUSES: dict[ErrorKind, int] = {
    ErrorKind.INVALID_REQUEST: 400,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.UNSUPPORTED: 501,
    ErrorKind.OVERLOADED: 503,
    ErrorKind.QUEUE_TIMEOUT: 503,
    ErrorKind.CANCELLED: 499,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.ENGINE_DEAD: 503,
    ErrorKind.DRAINING: 503,
    ErrorKind.LOAD_FAILED: 400,
    ErrorKind.INTERNAL: 500,
    ErrorKind.DISABLED: 503,
    ErrorKind.TOO_LARGE: 413,
    ErrorKind.RESTRICTED: 403,
}
# Triton answers these mistakes differently by route.
STATUSES_OF_ROUTE: dict[tuple[ErrorKind, str], int] = {
    (ErrorKind.NOT_FOUND, "stats"): 400,
    (ErrorKind.NOT_FOUND, "load"): 500,
}


def status_of(error: OctavoError, route: str) -> int:
    """The status code that ``route`` answers with for ``error``."""
    return STATUSES_OF_ROUTE.get((error.kind, route), STATUSES[error.kind])


def visible(error: Exception) -> OctavoError:
    """What a client may see of ``error``; a bug of ours is logged under an id."""
    return error if isinstance(error, OctavoError) else internal(error, log)


def error_json(text: str) -> bytes:
    """The body that tells of an error."""
    return msgspec.json.encode({"error": text})


def refusal(error: OctavoError, route: str) -> Response:
    """The reply to a request that failed with ``error``."""
    return Response(error_json(str(error)), status_of(error, route), media_type="application/json")
