"""Which shapes a step is padded to before it is replayed from a graph. Knows sizes, no tensor."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from octavo.engine.step import StepInput

MOST_ROWS = 1024
FIRST_ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256)
# A longer chunk keeps the device busy for longer than the host takes to launch its kernels one by one.
CHUNK_TOKENS = (64, 128, 256, 512)
MOST_PROMPTS = 16
LEAST_DECODES = 8


class Shape(NamedTuple):
    """Rows that decode, rows that compute a chunk of their prompt, and the tokens of all chunks."""

    decodes: int
    prompts: int = 0
    tokens: int = 0

    @property
    def rows(self) -> int:
        """Decodes, then prompts."""
        return self.decodes + self.prompts


class Shapes:
    """``every`` shape for steps of at most ``max_rows`` rows: ``decodes`` and ``chunks``, each from the smallest to the largest.

    ``largest``: those that need the most memory. ``first``: what any batch will come to, the largest first.
    """

    def __init__(self, max_rows: int) -> None:
        """As many as keep padding to a ninth of the rows that decode alone, and else to half of the rows and tokens."""
        self._rows = padded_sizes(max_rows)
        most = self._rows[-1]
        self._beside = sorted({min(LEAST_DECODES * 2**power, most) for power in range(8)})
        self._prompts = min(MOST_PROMPTS, max_rows)
        self.decodes = [Shape(rows) for rows in self._rows]
        self.chunks = [Shape(decodes, self._prompts, tokens) for decodes in self._beside for tokens in CHUNK_TOKENS]
        self.every = [*self.decodes, *self.chunks]
        self.largest = [self.chunks[-1], self.decodes[-1]]
        self.first = [shape for shape in reversed(self.decodes[:-1]) if shape.rows in FIRST_ROWS]

    def of(self, step: StepInput) -> Shape | None:
        """What ``step`` is padded to; None if it is too large, or if rows that yield no token stand between others."""
        prompts, tokens = len(step.rows) - step.num_decodes, len(step.token_ids)
        if step.num_decodes > self._rows[-1]:
            return None
        if not prompts:
            return Shape(_reaching(self._rows, step.num_decodes))
        finished = int(step.samples.sum())
        if prompts > self._prompts or tokens > CHUNK_TOKENS[-1] or not finished or not step.samples[:finished].all():
            return None
        return Shape(_reaching(self._beside, step.num_decodes), self._prompts, _reaching(CHUNK_TOKENS, tokens))


def padded_sizes(max_rows: int) -> list[int]:
    """1, 2, 4, and then steps that grow with the size, so that at most every ninth row is padding; at most 1024 rows."""
    most = min(max_rows, MOST_ROWS)
    sizes = {1, 2, 4, *range(8, 256, 8), *range(256, 512, 16), *range(512, MOST_ROWS, 32), most}
    return sorted(size for size in sizes if size <= most)


def _reaching(sizes: Sequence[int], count: int) -> int:
    return sizes[bisect_left(sizes, count)]
