"""``DecodeGraphs``: steps in which every row decodes, replayed from CUDA graphs of padded sizes. Knows a step, no model.

A graph fixes its shapes and addresses. So a step is padded to the next size that is captured. What a step takes of the host (its
rows, how long they are, how they sample) is sent when it differs from what the step before has left on the device; else nothing is.
Each of a step's two parts is a graph.
"""

import logging
from bisect import bisect_left
from collections.abc import Callable

import numpy as np
import torch

from octavo.engine.step import StepInput
from octavo.models.decoder import Decoder
from octavo.runtime.courier import Courier
from octavo.runtime.decode_step import DecodeStep
from octavo.runtime.rows import SamplingTable
from octavo.runtime.state import RowState
from octavo_kernels import Kernels

log = logging.getLogger(__name__)

MOST_ROWS = 1024
FIRST_ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256)
# What the driver keeps for the two instantiated graphs of one size, some hundred kernels.
BYTES_PER_SIZE = 4 * 2**20


def padded_sizes(max_rows: int) -> list[int]:
    """1, 2, 4, and then steps that grow with the size, so that at most every ninth row is padding; at most 1024 rows."""
    most = min(max_rows, MOST_ROWS)
    sizes = {1, 2, 4, *range(8, 256, 8), *range(256, 512, 16), *range(512, MOST_ROWS, 32), most}
    return sorted(size for size in sizes if size <= most)


class DecodeGraphs:
    """Two graphs for each size that came up so far, all in one memory pool.

    They share the memory of their inputs, their logits and all in between, so what a replay returns lasts until the next one.
    ``reserve_bytes``: what the device needs for sizes that are yet to come up.
    """

    def __init__(
        self, decoder: Decoder, kernels: Kernels, table: SamplingTable, state: RowState, courier: Courier, page_size: int,
        max_rows: int, device: torch.device,
    ) -> None:  # fmt: skip
        """``courier`` goes to ``device``, a GPU, where ``decoder`` is. There are no graphs before ``bind``."""
        self._table = table
        self._courier = courier
        self._sizes = padded_sizes(max_rows)
        self._step = DecodeStep(decoder, kernels, table, state, courier, page_size, self._sizes[-1], device)
        self._stream = torch.cuda.Stream(device)
        self._on_device: tuple[int, int, np.ndarray, np.ndarray] | None = None
        self.reserve_bytes = BYTES_PER_SIZE * len(self._sizes)

    def bind(self, kv: list[torch.Tensor], trial: bool) -> None:
        """Forget all graphs, and capture the first sizes over ``kv``, one layer's cache each; in a ``trial`` only the largest.

        The largest comes first: the others find their memory in the pool that it has filled.
        """
        self._kv = kv
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, torch.cuda.CUDAGraph]] = {}
        torch.cuda.empty_cache()  # the memory of the graphs before
        largest = self._sizes[-1]
        for size in [largest] if trial else sorted({largest, *FIRST_ROWS} & {*self._sizes}, reverse=True):
            self._capture(size)

    def covers(self, step: StepInput) -> bool:
        """Whether ``step`` is one of decodes alone and no larger than the largest graph."""
        return step.num_decodes == len(step.rows) <= self._sizes[-1]

    @torch.inference_mode()
    def forward(self, step: StepInput) -> torch.Tensor:
        """float32 logits [R, V] of a step that is covered; they may be changed before ``sample``."""
        count = len(step.rows)
        size = self._sizes[bisect_left(self._sizes, count)]
        if size not in self._graphs:
            self._capture(size)
        self._send(step, size)
        self._graphs[size][0].replay()
        return self._step.logits[:count]

    @torch.inference_mode()
    def sample(self, step: StepInput) -> torch.Tensor:
        """int64 [R], a token for each row of the step that ``forward`` was given; each row's newest from now on."""
        count = len(step.rows)
        size = self._sizes[bisect_left(self._sizes, count)]
        self._courier.before_overwriting()
        self._graphs[size][1].replay()
        self._on_device = size, self._table.changes, step.rows, step.context_lens + 1
        return self._step.drawn[:count]

    def _send(self, step: StepInput, size: int) -> None:
        """Send the step's control, unless the last step has left just that on the device."""
        if self._on_device is not None:
            known, changes, rows, contexts = self._on_device
            same = (known, changes) == (size, self._table.changes) and np.array_equal(rows, step.rows)
            if same and np.array_equal(contexts, step.context_lens):
                return
        self._on_device = None
        arrays = self._step.padding(size)
        for padded, values in zip(arrays, [step.rows, step.context_lens, *self._table.options(step.rows)], strict=True):
            padded[: len(values)] = values
        self._step.send(arrays)

    def _capture(self, size: int) -> None:
        """Compute a step of nothing but padding twice: once to have all kernels and workspaces there, once for the graphs."""
        control = self._step.send(self._step.padding(size))
        self._on_device = None
        here = torch.cuda.current_stream()
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            self._step.forward(control, self._kv)
            self._step.sample(control)
            forward = self._record(lambda: self._step.forward(control, self._kv))
            sample = self._record(lambda: self._step.sample(control))
        here.wait_stream(self._stream)
        self._graphs[size] = forward, sample
        log.info("Captured decode steps of %d rows", size)

    def _record(self, run: Callable[[], object]) -> torch.cuda.CUDAGraph:
        """What ``run`` launches. ``torch.cuda.graph`` would collect garbage and empty the cache, and hold up requests meanwhile."""
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin(pool=self._pool)
        try:
            run()
        finally:
            graph.capture_end()
        return graph
