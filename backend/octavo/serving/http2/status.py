"""How a gRPC call ends: ``Status``, and ``CallRefused`` for whoever ends one early. Knows no wire."""

from enum import IntEnum


class Status(IntEnum):
    """gRPC's status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class CallRefused(Exception):
    """A call ends with ``status`` and the text of this error, which the client reads."""

    def __init__(self, status: Status, text: str) -> None:
        """Say why."""
        super().__init__(text)
        self.status = status
