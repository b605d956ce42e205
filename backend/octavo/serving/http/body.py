"""Bodies of requests and replies: read up to a limit, which counts what is unpacked, and packed as the client accepts."""

import asyncio
import zlib
from collections.abc import AsyncIterator

from starlette.requests import Request

from octavo.errors import InvalidRequest, TooLarge, Unsupported

ENCODINGS = ("gzip", "deflate")
BODY_PATIENCE = 60.0
_EITHER = 32 + zlib.MAX_WBITS
_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_FASTEST = 1
_LONGEST_LENGTH = 18  # digits; a longer number is over any limit


async def read_body(request: Request, limit: int) -> bytes:
    """The body of ``request``. Raises ``TooLarge`` as soon as it is known to have more than ``limit`` bytes.

    Raises ``InvalidRequest`` if nothing of it comes for ``BODY_PATIENCE`` seconds.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity", *ENCODINGS):
        raise Unsupported("Unsupported compression type")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and (len(declared) > _LONGEST_LENGTH or int(declared) > limit):
        raise _too_large(limit)
    inflate = zlib.decompressobj(_EITHER) if encoding in ENCODINGS else None
    body = bytearray()
    async for chunk in _chunks(request):
        body += chunk if inflate is None else _inflated(inflate, chunk, limit - len(body) + 1)
        if len(body) > limit:
            raise _too_large(limit)
    if inflate is not None and not inflate.eof:
        raise InvalidRequest("The request body ends before its compressed data does.")
    return bytes(body)


def chosen_encoding(accepted: str) -> str | None:
    """The encoding that an ``Accept-Encoding`` header likes best among ours, None for none."""
    best, best_weight = None, 0.0
    for item in accepted.lower().split(","):
        name, _, parameter = item.partition(";")
        weight = _weight(parameter)
        if name.strip() in ENCODINGS and weight > best_weight:
            best, best_weight = name.strip(), weight
    return best


def deflated(body: bytes, encoding: str) -> bytes:
    """``body`` in one of ``ENCODINGS``."""
    packer = zlib.compressobj(_FASTEST, zlib.DEFLATED, _WINDOW[encoding])
    return packer.compress(body) + packer.flush()


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(BODY_PATIENCE):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise InvalidRequest(f"The rest of the request body did not come within {BODY_PATIENCE:g} s.") from None
        yield chunk


def _inflated(inflate: "zlib._Decompress", chunk: bytes, most: int) -> bytes:
    if inflate.eof and chunk:
        raise InvalidRequest("The request body goes on after its compressed data.")
    try:
        data = inflate.decompress(chunk, most)
    except zlib.error:
        raise InvalidRequest("The request body is not valid gzip or deflate data, as its Content-Encoding says.") from None
    if inflate.unused_data:
        raise InvalidRequest("The request body goes on after its compressed data.")
    return data


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    try:
        return float(value) if name == "q" else 1.0
    except ValueError:
        return 0.0


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body must have at most {limit} bytes after decompression.")
