"""How our errors read over HTTP in Triton's dialects, by the one table of status codes."""

import logging

import msgspec
from starlette.responses import Response

from octavo.errors import OctavoError, internal
from octavo.protocol.statuses import OF_ROUTE, STATUSES

log = logging.getLogger(__name__)


def status_of(error: OctavoError, route: str) -> int:
    """The status code that ``route`` answers with for ``error``."""
    return OF_ROUTE.get((error.kind, route), STATUSES[error.kind])


def visible(error: Exception) -> OctavoError:
    """What a client may see of ``error``; a bug of ours is logged under an id."""
    return error if isinstance(error, OctavoError) else internal(error, log)


def error_json(text: str) -> bytes:
    """The body that tells of an error."""
    return msgspec.json.encode({"error": text})


def refusal(error: OctavoError, route: str) -> Response:
    """The reply to a request that failed with ``error``."""
    return Response(error_json(str(error)), status_of(error, route), media_type="application/json")
