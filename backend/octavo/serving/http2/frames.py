"""HTTP/2's frames as bytes: what there is, and how ours are written. Keeps no state."""

import struct
from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, HAS_PRIORITY = 0x4, 0x8, 0x20
ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 2, 3, 4, 5, 6

MAX_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65_535
SMALLEST_MAX_FRAME = 16_384
LARGEST_MAX_FRAME = 2**24 - 1
HEAD_SIZE = 9
# The length in three bytes, the type, the flags, the stream.
HEAD = struct.Struct(">HBBBI")
# The same, with what stands before every gRPC message: whether it is compressed, and its length.
MESSAGE_HEAD = struct.Struct(">HBBBIBI")
PREFIX = struct.Struct(">BI")
SETTING = struct.Struct(">HI")
WORD = struct.Struct(">I")
TWO_WORDS = struct.Struct(">II")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Any frame."""
    size = len(payload)
    return HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """What we ask of the client."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(name, value) for name, value in values))


def window_update(stream: int, increment: int) -> bytes:
    """The client may send ``increment`` bytes more."""
    return frame(WINDOW_UPDATE, 0, stream, WORD.pack(increment))


def rst_stream(stream: int, code: int) -> bytes:
    """The stream is over."""
    return frame(RST_STREAM, 0, stream, WORD.pack(code))


def goaway(last_stream: int, code: int, text: str = "") -> bytes:
    """Nothing after ``last_stream`` was or will be looked at."""
    return frame(GOAWAY, 0, 0, TWO_WORDS.pack(last_stream, code) + text.encode())


SETTINGS_ACK = frame(SETTINGS, ACK, 0)
