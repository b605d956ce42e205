"""``Backlog``: how much of the answers on one stream nobody has read yet. Knows no generation."""

from octavo.errors import Cancelled

# What a token's text and id take, and each of its logprobs with the text of its token.
TOKEN_BYTES, LOGPROB_BYTES = 16, 100


class Backlog:
    """Counts the bytes of unread answers, about as many as a response would have for them, up to ``limit``."""

    __slots__ = ("_bytes", "_limit")

    def __init__(self, limit: int) -> None:
        """Nothing is unread."""
        self._limit = limit
        self._bytes = 0

    def add(self, tokens: int, logprobs: int) -> int:
        """Count ``tokens`` with that many ``logprobs`` each; their bytes. Raises ``Cancelled`` if they are too many."""
        size = tokens * (TOKEN_BYTES + LOGPROB_BYTES * logprobs)
        if self._bytes + size > self._limit:
            raise Cancelled(f"The request was cancelled, because more than {self._limit} bytes of answers were left unread.")
        self._bytes += size
        return size

    def take(self, size: int) -> None:
        """``size`` bytes were read."""
        self._bytes -= size
