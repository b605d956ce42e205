"""``DecodeGraphs``: steps in which every row decodes, replayed from CUDA graphs of padded sizes. Knows a decoder, no sampling.

A graph fixes its shapes and addresses. So a step is padded to the next size that is captured, and its inputs go, in one copy,
to where the graph of that size reads them. A padded row has no context and no slot: it reads and writes no page.
"""

import logging
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from octavo.engine.step import StepInput
from octavo.models.attention import AttentionContext
from octavo.models.decoder import Decoder
from octavo.runtime.batch import Batch
from octavo.runtime.courier import Courier, packed_bytes

log = logging.getLogger(__name__)

MOST_ROWS = 256
FIRST_ROWS = (8, 4, 2, 1)
# The narrowest page table, in tokens. The attention plans for rows as long as their page table is wide, and above this it gives
# even a full batch more splits than short rows can use; so longer rows have graphs of their own, each this much wider.
NARROWEST, WIDENING = 8192, 4
# What the driver keeps for one instantiated graph of a few hundred kernels.
BYTES_PER_GRAPH = 4 * 2**20


class GraphSize(NamedTuple):
    """The shape of a graph's page table: ``rows`` by ``pages``."""

    rows: int
    pages: int


class GraphSizes(NamedTuple):
    """What may be captured: every combination of ``rows`` and ``pages``, both ascending."""

    rows: list[int]
    pages: list[int]

    @classmethod
    def up_to(cls, max_rows: int, max_model_len: int, page_size: int) -> "GraphSizes":
        """1, 2, 4, 8 and then every eighth number of rows, at most 256; tables of 8192 tokens, and four times as wide each."""
        most = min(max_rows, MOST_ROWS)
        rows = {1, 2, 4, *range(8, most, 8), most}
        tokens = NARROWEST
        pages = []
        while tokens < max_model_len:
            pages.append(tokens // page_size)
            tokens *= WIDENING
        return cls(sorted(count for count in rows if count <= most), [*pages, -(-max_model_len // page_size)])

    @property
    def largest(self) -> GraphSize:
        """The size that needs the most memory."""
        return GraphSize(self.rows[-1], self.pages[-1])

    def fitting(self, step: StepInput) -> GraphSize | None:
        """The smallest size that holds ``step``; None if there is none, or if not every row decodes."""
        count, width = step.page_table.shape
        if step.num_decodes < count or count > self.rows[-1] or width > self.pages[-1]:
            return None
        return GraphSize(self.rows[bisect_left(self.rows, count)], self.pages[bisect_left(self.pages, width)])


def pad_decodes(step: StepInput, size: GraphSize, page_size: int) -> list[np.ndarray]:
    """What ``batch_of`` takes, for a step of decodes that fits ``size``; in shapes that depend on ``size`` alone."""
    count, width = step.page_table.shape
    page_table = np.zeros(size, np.int32)
    page_table[:count, :width] = step.page_table
    token_ids, contexts = np.zeros((2, size.rows), np.int64)
    token_ids[:count], contexts[:count] = step.token_ids, step.context_lens
    positions = np.maximum(contexts - 1, 0)
    pages = page_table[np.arange(size.rows), positions // page_size].astype(np.int64)
    slots = np.where(contexts > 0, pages * page_size + positions % page_size, -1)
    cu_query = np.arange(size.rows + 1, dtype=np.int32)
    return [token_ids, positions, slots, contexts, page_table, contexts.astype(np.int32), cu_query]


def batch_of(tensors: Sequence[torch.Tensor]) -> Batch:
    """The batch that the arrays of ``pad_decodes``, on the device, make up."""
    token_ids, positions, slots, contexts, page_table, context_lens, cu_query = tensors
    rows = len(token_ids)
    attention = AttentionContext(positions, slots, page_table, context_lens, cu_query, rows, 0)
    return Batch(token_ids, attention, None, contexts, np.arange(rows))


class DecodeGraphs:
    """One graph for each size that came up so far, all in one memory pool.

    They share the memory of their inputs, their logits and all in between, so what a replay returns lasts until the next one.
    ``reserve_bytes``: what the device needs for sizes that are yet to come up.
    """

    def __init__(self, decoder: Decoder, courier: Courier, sizes: GraphSizes, page_size: int, device: torch.device) -> None:
        """``courier`` goes to ``device``, a GPU, where ``decoder`` is. There are no graphs before ``bind``."""
        self._decoder = decoder
        self._courier = courier
        self._sizes = sizes
        self._page_size = page_size
        self._inputs = torch.empty(packed_bytes(self._no_decodes(sizes.largest)), dtype=torch.uint8, device=device)
        self._logits = torch.empty((sizes.rows[-1], decoder.shape.vocab_size), dtype=torch.float32, device=device)
        self._stream = torch.cuda.Stream(device)
        self.reserve_bytes = BYTES_PER_GRAPH * len(sizes.rows) * len(sizes.pages)

    @torch.inference_mode()
    def bind(self, kv: Sequence[torch.Tensor]) -> None:
        """Forget all graphs, and capture the first sizes over ``kv``, one layer's cache each.

        The largest comes first: the others find their memory in the pool that it has filled.
        """
        self._kv = kv
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[GraphSize, torch.cuda.CUDAGraph] = {}
        narrowest = self._sizes.pages[0]
        for size in [self._sizes.largest, *(GraphSize(rows, narrowest) for rows in FIRST_ROWS if rows in self._sizes.rows)]:
            self._graph(size)

    @torch.inference_mode()
    def replay(self, step: StepInput) -> tuple[torch.Tensor, torch.Tensor] | None:
        """float32 logits [R, V] of a step's R rows, and (int64 [R]) how many tokens stand before each new one.

        None, and nothing is computed, if ``step`` is not one of decodes alone or is larger than the largest graph.
        """
        size = self._sizes.fitting(step)
        if size is None:
            return None
        graph = self._graph(size)
        batch = batch_of(self._courier.send_to(self._inputs, pad_decodes(step, size, self._page_size)))
        graph.replay()
        count = len(step.rows)
        return self._logits[:count], batch.positions[:count]

    def _graph(self, size: GraphSize) -> torch.cuda.CUDAGraph:
        if size not in self._graphs:
            self._graphs[size] = self._capture(size)
        return self._graphs[size]

    def _capture(self, size: GraphSize) -> torch.cuda.CUDAGraph:
        """Compute a step of nothing but padding twice: once to have all kernels and workspaces there, once for the graph."""
        batch = batch_of(self._courier.send_to(self._inputs, self._no_decodes(size)))
        here = torch.cuda.current_stream()
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            self._compute(batch)
        here.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            self._compute(batch)
        log.info("Captured decode steps of %d rows and %d pages each", size.rows, size.pages)
        return graph

    def _compute(self, batch: Batch) -> None:
        hidden = self._decoder.forward(batch.token_ids, batch.attention, self._kv)
        self._decoder.logits(hidden, self._logits[: len(hidden)])

    def _no_decodes(self, size: GraphSize) -> list[np.ndarray]:
        none = np.zeros(0, np.int32)
        step = StepInput([], none, none, none, none, none.reshape(0, 0), 0, none.astype(np.bool_))
        return pad_decodes(step, size, self._page_size)
