"""Header blocks: requests read and checked (RFC 9113, 8.2 and 8.3), responses and trailers written without any state."""

import re
from typing import NamedTuple

from hpack import Decoder, HPACKError

from octavo.serving.http2.faults import Code, ConnectionFault

# A list that is over the limit is still read up to here, so that the call can be told and the connection goes on.
READABLE = 4
FIELD_OVERHEAD = 32
# Two updates of the table's size are allowed (RFC 7541, 4.2); a block of nothing else would be long to read.
_TOO_MANY_UPDATES = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\x00-\x7f]){3}")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"(?![ \t])[^\x00\r\n]*(?<![ \t])")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
_OF_A_CONNECTION = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
_UNPRINTABLE = re.compile(rb"[^\x20-\x24\x26-\x7e]")
MAX_TEXT = 4096


class Head(NamedTuple):
    """A request's header: text is ISO 8859-1, so that any bytes are some; of a repeated field the first value counts."""

    method: str
    path: str
    fields: dict[str, str]
    size: int


class Malformed(Exception):
    """A header that no HTTP/2 request may have."""


class HeaderReader:
    """Reads the header blocks of one connection, in order; each changes how the next is read."""

    def __init__(self, limit: int) -> None:
        """``limit``: what a request's header list may have; somewhat more is read."""
        self.max_block = READABLE * limit
        self._decoder = Decoder(max_header_list_size=READABLE * limit)

    def read(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """The fields of a block. Raises ``ConnectionFault``, after which nothing can be read any more."""
        if _TOO_MANY_UPDATES.match(block):
            raise ConnectionFault(Code.COMPRESSION_ERROR, "a header block must begin with at most two updates of the table's size")
        try:
            return [(field[0], field[1]) for field in self._decoder.decode(block, raw=True)]
        except HPACKError:
            raise ConnectionFault(Code.COMPRESSION_ERROR, "a header block cannot be read, or is far over the limit") from None


def request_head(fields: list[tuple[bytes, bytes]]) -> Head:
    """The header that ``fields`` are. Raises ``Malformed``."""
    pseudo: dict[bytes, bytes] = {}
    regular: dict[str, str] = {}
    size = 0
    for name, value in fields:
        size += len(name) + len(value) + FIELD_OVERHEAD
        if name[:1] == b":":
            if regular or name in pseudo or name not in _PSEUDO:
                raise Malformed
            pseudo[name] = value
        else:
            _check_field(name, value)
            regular.setdefault(name.decode("latin-1"), value.decode("latin-1"))
    if not (pseudo.get(b":method") and pseudo.get(b":path") and pseudo.get(b":scheme")):
        raise Malformed
    return Head(pseudo[b":method"].decode("latin-1"), pseudo[b":path"].decode("latin-1"), regular, size)


def check_trailers(fields: list[tuple[bytes, bytes]]) -> None:
    """A client's trailers say nothing in gRPC. Raises ``Malformed``."""
    for name, value in fields:
        _check_field(name, value)


def _check_field(name: bytes, value: bytes) -> None:
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value) or name in _OF_A_CONNECTION:
        raise Malformed
    if (name == b"te" and value != b"trailers") or (name == b"content-length" and not _LENGTH.fullmatch(value)):
        raise Malformed


def literal(name: bytes, value: bytes) -> bytes:
    """A field that changes nothing on the client's side."""
    return b"\x00" + _string(name) + _string(value)


def http_status(code: int) -> bytes:
    """The field ``:status``."""
    return b"\x88" if code == 200 else b"\x08" + _string(str(code).encode())


def status_fields(status: int, text: str) -> bytes:
    """``grpc-status`` and, if there is a text, ``grpc-message``."""
    fields = literal(b"grpc-status", str(status).encode())
    if text:
        fields += literal(b"grpc-message", _UNPRINTABLE.sub(_percent, text.encode(errors="replace")[:MAX_TEXT]))
    return fields


def _percent(found: re.Match[bytes]) -> bytes:
    return b"%%%02X" % ord(found.group())


def _string(data: bytes) -> bytes:
    """Its length, with seven bits in the first byte, and itself."""
    size = len(data)
    if size < 127:
        return bytes((size,)) + data
    size -= 127
    length = bytearray((127,))
    while size >= 128:
        length.append(size & 127 | 128)
        size >>= 7
    length.append(size)
    return bytes(length) + data


# Content-type stands in the static table (RFC 7541, A) at 31.
RESPONSE = (
    http_status(200) + b"\x0f\x10" + _string(b"application/grpc") + literal(b"grpc-accept-encoding", b"identity,deflate,gzip")
)
