"""How our errors read over gRPC: (kind, RPC) -> status code. The one table; nothing else in this transport names a code."""

from octavo.errors import ErrorKind, OctavoError
from octavo.serving.http2.status import CallRefused, Status

MAX_STATUS_BYTES = 2000
UNPARSABLE = "Unable to parse request"

CODES: dict[ErrorKind, Status] = {
    ErrorKind.INVALID_REQUEST: Status.INVALID_ARGUMENT,
    ErrorKind.NOT_FOUND: Status.NOT_FOUND,
    ErrorKind.UNSUPPORTED: Status.UNIMPLEMENTED,
    ErrorKind.OVERLOADED: Status.UNAVAILABLE,
    ErrorKind.QUEUE_TIMEOUT: Status.UNAVAILABLE,
    ErrorKind.CANCELLED: Status.CANCELLED,
    ErrorKind.UNAUTHENTICATED: Status.UNAUTHENTICATED,
    ErrorKind.FORBIDDEN: Status.PERMISSION_DENIED,
    ErrorKind.ENGINE_DEAD: Status.UNAVAILABLE,
    ErrorKind.DRAINING: Status.UNAVAILABLE,
    ErrorKind.LOAD_FAILED: Status.INVALID_ARGUMENT,
    ErrorKind.INTERNAL: Status.INTERNAL,
    ErrorKind.DISABLED: Status.UNAVAILABLE,
    ErrorKind.TOO_LARGE: Status.RESOURCE_EXHAUSTED,
    ErrorKind.RESTRICTED: Status.UNAVAILABLE,
}
# Triton answers these mistakes differently by RPC.
CODES_OF_RPC: dict[tuple[ErrorKind, str], Status] = {
    (ErrorKind.NOT_FOUND, "ModelStatistics"): Status.INVALID_ARGUMENT,
    (ErrorKind.NOT_FOUND, "RepositoryModelLoad"): Status.INTERNAL,
}


def code_of(error: OctavoError, rpc: str) -> Status:
    """The status code that ``rpc`` ends with for ``error``."""
    return CODES_OF_RPC.get((error.kind, rpc), CODES[error.kind])


def status_text(error: OctavoError) -> str:
    """The text of ``error``, cut so that a client's limit of 8 KiB for all metadata is kept even when it is percent-encoded."""
    return str(error).encode()[:MAX_STATUS_BYTES].decode(errors="ignore")


def refusal(error: OctavoError, rpc: str) -> CallRefused:
    """How ``rpc`` ends for ``error``."""
    return CallRefused(code_of(error, rpc), status_text(error))
