"""``StepGraphs``: decodes, alone or beside short chunks, replayed from CUDA graphs of padded shapes. Knows a step, no model.

A graph fixes its shapes and addresses. So a step is padded to the next shape that is captured. What a step takes of the host (its
rows, how long they are, how they sample) is sent when it differs from what the step before has left on the device; else nothing is.
Each of a step's two parts is a graph.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import torch

from octavo.engine.step import StepInput
from octavo.models.decoder import Decoder
from octavo.runtime.courier import Courier
from octavo.runtime.memory import GRAPHS_BYTES
from octavo.runtime.padded_step import PaddedStep
from octavo.runtime.rows import SamplingTable
from octavo.runtime.shapes import Shape, Shapes
from octavo.runtime.state import RowState
from octavo_kernels import Kernels

log = logging.getLogger(__name__)


class OnDevice(NamedTuple):
    """What a step before has left of what a step takes of the host: ``changes`` of the table, the rest as in ``StepInput``."""

    shape: Shape
    changes: int
    rows: np.ndarray
    context_lens: np.ndarray


class Sampling(NamedTuple):
    """The second part of a step, made ready during the first: the device waits for its launch, but not for that of the other.

    ``drawn``: where its tokens will be. ``left``: what it leaves on the device for the next step.
    """

    graph: torch.cuda.CUDAGraph
    drawn: torch.Tensor
    left: OnDevice | None


class StepGraphs:
    """Two graphs for each shape that came up so far, all in one memory pool.

    They share the memory of their inputs, their logits and all in between, so what a replay returns lasts until the next one.
    ``reserve_bytes``: what the device needs for shapes that are yet to come up.
    """

    def __init__(
        self, decoder: Decoder, kernels: Kernels, table: SamplingTable, state: RowState, courier: Courier, page_size: int,
        max_rows: int, device: torch.device,
    ) -> None:  # fmt: skip
        """``courier`` goes to ``device``, a GPU, where ``decoder`` is. There are no graphs before ``bind``."""
        self._table = table
        self._courier = courier
        self._shapes = Shapes(max_rows)
        every = self._shapes.every
        self._step = PaddedStep(decoder, kernels, table, state, courier, page_size, every, device)
        self._stream = torch.cuda.Stream(device)
        self._on_device: OnDevice | None = None
        self.reserve_bytes = GRAPHS_BYTES * len(every)

    def bind(self, kv: list[torch.Tensor], trial: bool) -> None:
        """Forget all graphs, and capture the first shapes over ``kv``, one layer's cache each; in a ``trial`` only the largest.

        The largest comes first: the others find their memory in the pool that it has filled.
        """
        self._kv = kv
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[Shape, tuple[torch.cuda.CUDAGraph, torch.cuda.CUDAGraph]] = {}
        self._too_large: set[Shape] = set()
        torch.cuda.empty_cache()  # the memory of the graphs before
        for shape in self._shapes.largest if trial else [*self._shapes.largest, *self._shapes.first]:
            self._capture(shape)

    def capture_one(self) -> bool:
        """Capture a shape that has not come up yet; False if there is none."""
        for shape in [*self._shapes.chunks, *self._shapes.decodes]:
            if shape not in self._graphs and shape not in self._too_large:
                self._has(shape)
                return True
        return False

    def covers(self, step: StepInput) -> bool:
        """Whether there are graphs for ``step``, captured now if they can be, and none of its prompts is to be scored."""
        prompts, shape = self._table.prompts, self._shapes.of(step)
        if shape is None or (prompts and any(row in prompts for row in step.rows.tolist())):
            return False
        return self._has(shape)

    @torch.inference_mode()
    def forward(self, step: StepInput) -> torch.Tensor:
        """float32 logits [S, V] of the rows of a step that yield a token; they may be changed before ``sample``."""
        shape = self._shapes.of(step)
        assert shape is not None
        self._send(step, shape)
        forward, sample = self._graphs[shape]
        forward.replay()
        drawing = self._step.drawing(step, shape)
        left = None if shape.tokens else OnDevice(shape, self._table.changes, step.rows, step.context_lens + 1)
        self._sampling = Sampling(sample, self._step.drawn[drawing], left)
        return self._step.logits[drawing]

    def sample(self) -> torch.Tensor:
        """int64 [S], their tokens, of the step that ``forward`` was given last; each row's newest from now on."""
        self._courier.before_overwriting()
        self._sampling.graph.replay()
        self._on_device = self._sampling.left
        return self._sampling.drawn

    def _has(self, shape: Shape) -> bool:
        """Whether there are graphs of ``shape``, now or from now on; an engine without memory for them goes on without."""
        if shape not in self._graphs and shape not in self._too_large:
            try:
                self._capture(shape)
            except torch.cuda.OutOfMemoryError as error:
                self._too_large.add(shape)
                log.warning("No memory for graphs of %d decodes and %d prompt tokens: %s", shape.decodes, shape.tokens, error)
        return shape in self._graphs

    def _send(self, step: StepInput, shape: Shape) -> None:
        """Send the step's control, unless the last step has left just that on the device."""
        if self._on_device is not None:
            known, changes, rows, contexts = self._on_device
            same = (known, changes) == (shape, self._table.changes) and np.array_equal(rows, step.rows)
            if same and np.array_equal(contexts, step.context_lens):
                return
        self._on_device = None
        self._step.send(self._step.control(shape, step))

    def _capture(self, shape: Shape) -> None:
        """Compute a step of nothing but padding twice: once to have all kernels and workspaces there, once for the graphs."""
        self._courier.before_overwriting()
        control = self._step.send(self._step.control(shape))
        self._on_device = None
        here = torch.cuda.current_stream()
        self._stream.wait_stream(here)
        try:
            with torch.cuda.stream(self._stream):
                self._step.forward(control, self._kv)
                self._step.sample(control)
                forward = self._record(lambda: self._step.forward(control, self._kv))
                sample = self._record(lambda: self._step.sample(control))
        finally:
            here.wait_stream(self._stream)
        self._graphs[shape] = forward, sample
        log.info("Captured steps of %d decodes and %d prompt tokens", shape.decodes, shape.tokens)

    def _record(self, run: Callable[[], object]) -> torch.cuda.CUDAGraph:
        """What ``run`` launches. ``torch.cuda.graph`` would collect garbage and empty the cache, and hold up requests meanwhile."""
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin(pool=self._pool)
        try:
            run()
        except BaseException:
            with suppress(RuntimeError):  # the first error counts
                graph.capture_end()
            raise
        graph.capture_end()
        return graph
