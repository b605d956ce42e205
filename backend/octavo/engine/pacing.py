"""``ChunkPacer``: how much of a prompt may share a step with decodes, so that these keep their pace. Knows times and counts only.

A step takes what its decodes take alone, and more for the tokens of a chunk. The first of them cost little (the weights are read
anyway), later ones more, and more again behind a long context. So the chunk follows what the last one took of the time that
decodes leave: gently, because a token's cost is not the average's, but at once where a step took far too long.
"""

LEAST = 64  # so that a prompt gets on even where decodes alone are slower than the target
GROWTH, SHRINKAGE = 1.3, 0.25
WEIGHT = 0.25  # of the newest step in what decodes take alone


class ChunkPacer:
    """Keeps steps with decodes within ``target`` seconds, as far as chunks decide that.

    ``limit``: the most prompt tokens for the next one.
    """

    def __init__(self, target: float) -> None:
        """Nothing is learned yet."""
        self._target = target
        self._alone: float | None = None
        self.limit = LEAST

    def took(self, seconds: float, decodes: int, chunk: int) -> None:
        """A step of ``decodes`` and ``chunk`` prompt tokens took ``seconds``, from the end of the last one to its own."""
        if not decodes:
            return
        if not chunk:
            self._alone = seconds if self._alone is None else self._alone + WEIGHT * (seconds - self._alone)
        elif self._alone is not None:
            spare, used = self._target - self._alone, seconds - self._alone
            ratio = spare / used if used > spare / GROWTH**2 else GROWTH**2
            self.limit = max(LEAST, int(chunk * (ratio**0.5 if ratio > 0.5 else max(ratio, SHRINKAGE))))
