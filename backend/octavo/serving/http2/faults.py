"""What a client does against RFC 9113: to its connection (``ConnectionFault``) or to one stream of it (``StreamFault``)."""

from enum import IntEnum


class Code(IntEnum):
    """HTTP/2's error codes."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class ConnectionFault(Exception):
    """The connection ends with ``code``; the text goes with it."""

    def __init__(self, code: Code, text: str) -> None:
        """Say why."""
        super().__init__(text)
        self.code = code


class StreamFault(Exception):
    """One stream ends with ``code``; the connection goes on."""

    def __init__(self, stream: int, code: Code) -> None:
        """Say which and why."""
        super().__init__(stream, code)
        self.stream, self.code = stream, code
