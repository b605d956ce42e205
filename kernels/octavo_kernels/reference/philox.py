"""Philox-4x32-10, the counter-based generator, in int64 tensor arithmetic. Knows nothing of sampling.

Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).
"""

import torch

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF

Words = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def philox(counter: Words, key: torch.Tensor) -> Words:
    """The four 32-bit output words (int64 tensors) for a counter of four 32-bit words and a 64-bit ``key``, elementwise."""
    first, second, third, fourth = counter
    low, high = key & _MASK, (key >> 32) & _MASK
    for _ in range(10):
        left, right = first * _MULTIPLIERS[0], third * _MULTIPLIERS[1]
        first, second = (right >> 32).bitwise_and_(_MASK) ^ second ^ low, right & _MASK
        third, fourth = (left >> 32).bitwise_and_(_MASK) ^ fourth ^ high, left & _MASK
        low, high = (low + _WEYL[0]) & _MASK, (high + _WEYL[1]) & _MASK
    return first, second, third, fourth
