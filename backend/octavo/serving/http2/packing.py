"""How messages are compressed: gzip and deflate, with a limit for what comes out. Knows no call."""

import zlib
from functools import partial
from typing import Protocol

from octavo.serving.http2.status import CallRefused, Status

IDENTITY = "identity"
# Zlib's window, which also says whether there is gzip's header.
WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
# What is unpacked in a turn of the loop, some three milliseconds; the rest is a thread's.
AT_ONCE = 2**20


def pack(message: bytes, coding: str, level: int) -> bytes:
    """``message``, compressed."""
    packer = zlib.compressobj(level, zlib.DEFLATED, WINDOWS[coding])
    return packer.compress(message) + packer.flush()


class Budget(Protocol):
    """``unpacking``: bytes that may be unpacked at once, by whoever comes."""

    unpacking: int

    def unpacked(self, size: int) -> None:
        """So many were."""


class Unpacking:
    """One compressed message. ``message`` is there once it is whole; if it is not, ``rest`` has to go on, in a thread.

    ``size``: bytes that are kept until then.
    """

    def __init__(self, data: bytes, coding: str, limit: int, budget: Budget) -> None:
        """Unpack the beginning, as far as ``budget`` goes. Raises ``CallRefused``."""
        self._inflate = zlib.decompressobj(WINDOWS[coding])
        self._limit = limit
        self.message: bytes | None = None
        most = min(budget.unpacking, limit + 1)
        self._begin, tail = b"", data
        if most > 0:
            self._begin = self._go_on(data, most)
            tail = self._inflate.unconsumed_tail
            budget.unpacked(len(self._begin))
        self.size, self.rest = len(self._begin) + len(tail), partial(self._all, tail)
        if self._inflate.eof or len(self._begin) < most or most > limit:
            self.message = self._checked(self._begin)

    def _all(self, tail: bytes) -> bytes:
        return self._checked(self._begin + self._go_on(tail, max(1, self._limit + 1 - len(self._begin))))

    def _go_on(self, data: bytes, most: int) -> bytes:
        try:
            return self._inflate.decompress(data, most)
        except zlib.error:
            raise CallRefused(Status.INTERNAL, "A message is not compressed as its call's grpc-encoding says.") from None

    def _checked(self, message: bytes) -> bytes:
        if len(message) > self._limit:
            raise too_large(self._limit)
        if not self._inflate.eof or self._inflate.unused_data:
            raise CallRefused(Status.INTERNAL, "A compressed message does not end where it says.")
        return message


def too_large(limit: int) -> CallRefused:
    """Why a message is not read."""
    return CallRefused(Status.RESOURCE_EXHAUSTED, f"A message must have at most {limit} bytes after decompression.")
