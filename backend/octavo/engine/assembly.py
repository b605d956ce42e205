"""``StepAssembly``: the arrays of one step out of what the scheduler planned. Knows rows and page numbers, decides nothing."""

from typing import NamedTuple

import numpy as np

from octavo.engine.matches import Matches
from octavo.engine.rows import RowTable
from octavo.engine.step import RowStart, StepInput


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
        self._changes: dict[int, list[tuple[int, int, int]]] = {}

    def set_pages(self, row: int, start: int, pages: list[int]) -> None:
        """Row ``row`` holds ``pages`` from its ``start``-th on."""
        self._changes.setdefault(row, []).extend((row, start + place, page) for place, page in enumerate(pages))

    def clear_row(self, row: int) -> None:
        """The row has no owner: what had changed for the last one no longer matters."""
        self._changes.pop(row, None)

    def build(self, plan: Plan, table: RowTable, matches: Matches) -> StepInput:
        """The step's arrays, decodes first."""
        first = len(plan.decodes)
        rows = np.concatenate([plan.decodes, np.array([row for row, _ in plan.chunks], np.int64)])
        contexts = table.num_computed[rows]
        lens = np.ones(len(rows), np.int64)
        lens[first:] = [count for _, count in plan.chunks]
        samples = contexts >= table.num_tokens[rows]
        pieces = [table.tokens[row, end - count : end] for (row, count), end in zip(plan.chunks, contexts[first:], strict=True)]
        changes = [change for changes in self._changes.values() for change in changes]
        self._changes = {}
        return StepInput(
            starts=plan.starts,
            pages=np.array(changes, np.int32).reshape(-1, 3),
            rows=rows,
            token_ids=np.concatenate([np.zeros(0, np.int32), *pieces]),
            query_lens=lens,
            context_lens=contexts,
            num_decodes=first,
            samples=samples,
            masks=matches.masks(rows[samples].tolist()),
        )
