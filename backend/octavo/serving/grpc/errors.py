"""How our errors read over gRPC: (kind, RPC) -> status code. The one table; nothing else in this transport names a code."""

from typing import TypeAlias

import grpc

from octavo.errors import ErrorKind, OctavoError

Code: TypeAlias = grpc.StatusCode
MAX_STATUS_BYTES = 2000
UNPARSABLE = "Unable to parse request"

CODES: dict[ErrorKind, Code] = {
    ErrorKind.INVALID_REQUEST: Code.INVALID_ARGUMENT,
    ErrorKind.NOT_FOUND: Code.NOT_FOUND,
    ErrorKind.UNSUPPORTED: Code.UNIMPLEMENTED,
    ErrorKind.OVERLOADED: Code.UNAVAILABLE,
    ErrorKind.QUEUE_TIMEOUT: Code.UNAVAILABLE,
    ErrorKind.CANCELLED: Code.CANCELLED,
    ErrorKind.UNAUTHENTICATED: Code.UNAUTHENTICATED,
    ErrorKind.FORBIDDEN: Code.PERMISSION_DENIED,
    ErrorKind.ENGINE_DEAD: Code.UNAVAILABLE,
    ErrorKind.DRAINING: Code.UNAVAILABLE,
    ErrorKind.LOAD_FAILED: Code.INVALID_ARGUMENT,
    ErrorKind.INTERNAL: Code.INTERNAL,
    ErrorKind.DISABLED: Code.UNAVAILABLE,
    ErrorKind.TOO_LARGE: Code.RESOURCE_EXHAUSTED,
    ErrorKind.RESTRICTED: Code.UNAVAILABLE,
}
# Triton answers these mistakes differently by RPC.
CODES_OF_RPC: dict[tuple[ErrorKind, str], Code] = {
    (ErrorKind.NOT_FOUND, "ModelStatistics"): Code.INVALID_ARGUMENT,
    (ErrorKind.NOT_FOUND, "RepositoryModelLoad"): Code.INTERNAL,
}


def code_of(error: OctavoError, rpc: str) -> Code:
    """The status code that ``rpc`` ends with for ``error``."""
    return CODES_OF_RPC.get((error.kind, rpc), CODES[error.kind])


def status_text(error: OctavoError) -> str:
    """The text of ``error``, cut so that a client's limit of 8 KiB for all metadata is kept even when it is percent-encoded."""
    return str(error).encode()[:MAX_STATUS_BYTES].decode(errors="ignore")
