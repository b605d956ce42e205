"""Token ids to measure with: random, but the same in every run, and away from the special tokens at both ends of a vocabulary."""

import random


def random_prompts(count: int, length: int, vocab_size: int, seed: int) -> list[list[int]]:
    """``count`` distinct prompts of ``length`` token ids each."""
    rng = random.Random(seed)
    low = min(100, vocab_size // 4)
    return [[rng.randrange(low, vocab_size - low) for _ in range(length)] for _ in range(count)]
