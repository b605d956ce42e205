"""How our errors read over HTTP: kind -> status code. The one table of this transport."""

from octavo.errors import ErrorKind, OctavoError

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
}


def status_of(error: OctavoError) -> int:
    """The status code of ``error``."""
    return STATUSES[error.kind]
