"""``StepAssembly``: the arrays of one step out of what the scheduler planned. Knows rows and page numbers, decides nothing."""

from typing import NamedTuple

import numpy as np

from octavo.engine.rows import RowTable
from octavo.engine.step import RowStart, StepInput

NO_TOKENS = np.zeros(0, np.int32)
NO_PAGES = np.zeros((0, 3), np.int32)


class Plan(NamedTuple):
    """Who computes how much in one step: the rows ``decodes`` (int64) one token each, ``chunks`` (row, so many known tokens).

    ``num_computed`` of each row already counts this step.
    """

    starts: list[RowStart]
    decodes: np.ndarray
    chunks: list[tuple[int, int]]


class StepAssembly:
    """Collects what has changed in the rows' page tables, and makes the arrays of a step."""

    def __init__(self) -> None:
        """Nothing has changed."""
        self._changes: list[tuple[int, int, int]] = []

    def set_pages(self, row: int, start: int, pages: list[int]) -> None:
        """Row ``row`` holds ``pages`` from its ``start``-th on."""
        for place, page in enumerate(pages, start):
            self._changes.append((row, place, page))

    def clear_row(self, row: int) -> None:
        """The row has no owner: what had changed for the last one no longer matters."""
        self._changes = [change for change in self._changes if change[0] != row]

    def build(self, plan: Plan, table: RowTable) -> StepInput:
        """The step's arrays, decodes first."""
        first = len(plan.decodes)
        rows, lens = plan.decodes, np.ones(first + len(plan.chunks), np.int64)
        if plan.chunks:
            rows = np.concatenate([rows, np.array([row for row, _ in plan.chunks], np.int64)])
            lens[first:] = [count for _, count in plan.chunks]
        contexts = table.num_computed[rows]
        samples = contexts >= table.num_tokens[rows]
        pieces = [table.tokens[row, end - count : end] for (row, count), end in zip(plan.chunks, contexts[first:], strict=True)]
        return StepInput(
            starts=plan.starts,
            pages=self._changed_pages(),
            rows=rows,
            token_ids=np.concatenate(pieces) if pieces else NO_TOKENS,
            query_lens=lens,
            context_lens=contexts,
            num_decodes=first,
            samples=samples,
        )

    def _changed_pages(self) -> np.ndarray:
        if not self._changes:
            return NO_PAGES
        changes, self._changes = np.array(self._changes, np.int32), []
        return changes
