"""``StepAssembly``: the arrays of one step out of what the scheduler planned. Knows rows and page tables, decides nothing."""

from typing import NamedTuple

import numpy as np

from octavo.engine.request import Request
from octavo.engine.step import RowStart, StepInput


class Plan(NamedTuple):
    """Who computes how much in one step: decoding requests one token each, ``chunks`` so many of their known tokens.

    ``num_computed`` of each request already counts this step.
    """

    starts: list[RowStart]
    decodes: list[Request]
    chunks: list[tuple[Request, int]]


class StepAssembly:
    """The rows' page tables, kept from step to step, and the arrays made of them."""

    def __init__(self, num_rows: int, pages_per_row: int) -> None:
        """``pages_per_row``: the most pages that one request can hold."""
        self._table = np.zeros((num_rows, pages_per_row), np.int32)

    def set_pages(self, row: int, start: int, pages: list[int]) -> None:
        """Row ``row`` holds ``pages`` from its ``start``-th on."""
        self._table[row, start : start + len(pages)] = pages

    def clear_row(self, row: int, num_pages: int) -> None:
        """Forget a row that held ``num_pages``."""
        self._table[row, :num_pages] = 0

    def build(self, plan: Plan, page_size: int) -> StepInput:
        """The step's arrays, decodes first."""
        first = len(plan.decodes)
        requests = [*plan.decodes, *(request for request, _ in plan.chunks)]
        rows = np.array([request.row for request in requests], np.int32)
        contexts = np.array([request.num_computed for request in requests], np.int32)
        lens = np.ones(len(requests), np.int32)
        lens[first:] = [count for _, count in plan.chunks]
        samples = np.ones(len(requests), np.bool_)
        samples[first:] = [request.num_computed == request.num_tokens for request, _ in plan.chunks]
        newest = np.array([request.newest for request in plan.decodes], np.int32)
        pieces = [request.tokens[request.num_computed - count : request.num_computed] for request, count in plan.chunks]
        return StepInput(
            starts=plan.starts,
            rows=rows,
            token_ids=np.concatenate([newest, *pieces]),
            query_lens=lens,
            context_lens=contexts,
            page_table=self._table[rows, : -(-int(contexts.max()) // page_size)],
            num_decodes=first,
            samples=samples,
        )
