"""How our errors read as status codes of HTTP: (kind, route) -> code. The one table; nothing else names the code of an error."""

from octavo.errors import ErrorKind

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
OF_ROUTE: dict[tuple[ErrorKind, str], int] = {
    (ErrorKind.NOT_FOUND, "stats"): 400,
    (ErrorKind.NOT_FOUND, "load"): 500,
}
# OpenAI's clients know these by others.
OPENAI = STATUSES | {
    ErrorKind.UNSUPPORTED: 400,
    ErrorKind.OVERLOADED: 429,
    ErrorKind.QUEUE_TIMEOUT: 408,
}
