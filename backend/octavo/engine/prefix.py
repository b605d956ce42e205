"""``PrefixChain``: the names of cached prefixes. Knows tokens and digests, no page and no request.

A full page's key is SHA-256(parent page's key | its tokens); the first page's parent is SHA-256(secret | cache salt). So a key
stands for everything up to and including its page, nobody outside can compute or collide one, and salts never meet.
"""

import os
from hashlib import sha256

import numpy as np


class PrefixChain:
    """Makes keys under a secret that lives as long as this process."""

    def __init__(self, page_size: int) -> None:
        """``page_size``: tokens per page."""
        self._page_size = page_size
        self._secret = os.urandom(32)

    def extend(self, keys: list[bytes], salt: str, tokens: np.ndarray) -> None:
        """Append to ``keys`` those of the full pages of ``tokens`` (int32 [n], contiguous) that it does not have yet."""
        size = self._page_size
        parent = keys[-1] if keys else sha256(self._secret + salt.encode()).digest()
        for start in range(len(keys) * size, len(tokens) - size + 1, size):
            parent = sha256(parent + tokens[start : start + size].tobytes()).digest()
            keys.append(parent)
