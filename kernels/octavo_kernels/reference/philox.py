"""Philox-4x32-10, the counter-based generator, on arrays of unsigned words. Knows nothing of sampling.

Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).
"""

import numpy as np

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)

Words = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def philox(counter: Words, key: np.ndarray) -> Words:
    """The four output words (uint32) for a counter of four uint32 arrays and a uint64 ``key``, all of one length."""
    first, second, third, fourth = counter
    low, high = key.astype(np.uint32), (key >> np.uint64(32)).astype(np.uint32)
    for _ in range(10):
        left = np.multiply(first, _MULTIPLIERS[0], dtype=np.uint64).view(np.uint32)  # low and high words in turn
        right = np.multiply(third, _MULTIPLIERS[1], dtype=np.uint64).view(np.uint32)
        first, second, third, fourth = right[1::2] ^ second ^ low, right[::2], left[1::2] ^ fourth ^ high, left[::2]
        low, high = low + _WEYL[0], high + _WEYL[1]
    return first, second, third, fourth
