"""``PaddedStep``: a step of fixed shape, over state that stays on the device. Knows a decoder, a sampler, no graph.

It is two parts: the forward pass up to the logits, and the sampling, which also moves rows on by a token. Between them the logits
may be changed for what only few rows ask.
"""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch

from octavo.engine.step import StepInput
from octavo.models.attention import AttentionContext
from octavo.models.decoder import Decoder
from octavo.runtime.courier import Courier, packed_bytes
from octavo.runtime.rows import SamplingOptions, SamplingTable
from octavo.runtime.shapes import Shape
from octavo.runtime.state import RowState
from octavo_kernels import Kernels
from octavo_kernels.reference.decode_inputs import DecodeInputs

# Below every context: the row is padding, now and after any number of steps.
PADDING = -(2**62)
Array = TypeVar("Array", np.ndarray, torch.Tensor)


class Chunks(NamedTuple, Generic[Array]):
    """The tokens of the chunks, T in all, laid end to end; padding comes last.

    ``token_ids``, ``places`` (in ``Control.rows``) and ``positions`` (-1 for padding): int64 [T]. ``last``: int64 [R], which of
    the step's tokens, decodes first, is each row's last. ``keepers``: int64 [R], whose newest token a drawn one becomes.
    ``cu_query``: int32 [R + 1], see ``AttentionContext``.
    """

    token_ids: Array
    places: Array
    positions: Array
    last: Array
    keepers: Array
    cu_query: Array


class Control(NamedTuple, Generic[Array]):
    """What a step takes of the host: whose rows, how long they will be, how each of them samples, and the chunks if there are any.

    ``rows`` and ``contexts``: int64 [R], see ``decode_inputs``.
    """

    shape: Shape
    rows: Array
    contexts: Array
    options: SamplingOptions[Array]
    chunks: Chunks[Array] | None

    def arrays(self) -> list[Array]:
        """All of them, in the order of the fields."""
        return [self.rows, self.contexts, *self.options, *(self.chunks or ())]


class PaddedStep:
    """Steps of up to ``most_rows`` rows, one at a time: all of them have the same inputs, logits and results in memory.

    ``logits``: float32 [most_rows, V]. ``drawn``: int64 [most_rows].
    """

    def __init__(
        self, decoder: Decoder, kernels: Kernels, table: SamplingTable, state: RowState, courier: Courier, page_size: int,
        shapes: Sequence[Shape], device: torch.device,
    ) -> None:  # fmt: skip
        """``courier`` goes to ``device``, where ``decoder`` is. ``shapes``: those that may come."""
        self._decoder = decoder
        self._kernels = kernels
        self._table = table
        self._state = state
        self._courier = courier
        self._page_size = page_size
        most_rows = max(shape.rows for shape in shapes)
        most_bytes = max(packed_bytes(self.control(shape).arrays()) for shape in shapes)
        self._control = torch.empty(most_bytes, dtype=torch.uint8, device=device)
        self.logits = torch.empty((most_rows, decoder.shape.vocab_size), dtype=torch.float32, device=device)
        self.drawn = torch.empty(most_rows, dtype=torch.int64, device=device)

    def control(self, shape: Shape, step: StepInput | None = None) -> Control[np.ndarray]:
        """That of ``step``, which is padded to ``shape``; without one, nothing but padding."""
        rows, contexts = np.full(shape.rows, self._state.nobody), np.full(shape.rows, PADDING)
        chunks = self._no_chunks(shape) if shape.tokens else None
        if step is not None:
            here = _place(step, shape)
            rows[here], contexts[here] = step.rows, step.context_lens
            if chunks is not None:
                self._lay(step, shape, chunks)
        return Control(shape, rows, contexts, self._table.options(rows), chunks)

    def _no_chunks(self, shape: Shape) -> Chunks[np.ndarray]:
        last = np.zeros(shape.rows, np.int64)
        last[: shape.decodes] = np.arange(shape.decodes)
        return Chunks(
            token_ids=np.zeros(shape.tokens, np.int64),
            places=np.full(shape.tokens, shape.decodes),
            positions=np.full(shape.tokens, -1),
            last=last,
            keepers=np.full(shape.rows, self._state.nobody),
            cu_query=np.minimum(np.arange(shape.rows + 1, dtype=np.int32), np.int32(shape.decodes)),
        )

    def _lay(self, step: StepInput, shape: Shape, chunks: Chunks[np.ndarray]) -> None:
        """Lay the chunks of ``step`` over the padding of ``chunks``."""
        here, first, count = _place(step, shape), shape.decodes, len(step.token_ids)
        lens = step.query_lens[step.num_decodes :]
        ends, owner = np.cumsum(lens), np.repeat(np.arange(len(lens)), lens)
        chunks.token_ids[:count] = step.token_ids
        chunks.places[:count] = first + owner
        chunks.positions[:count] = np.arange(count) + (step.context_lens[step.num_decodes :] - ends)[owner]
        chunks.last[first : here.stop] = first + ends - 1
        chunks.keepers[here] = np.where(step.samples, step.rows, self._state.nobody)
        chunks.cu_query[first + 1 :] = first + count
        chunks.cu_query[first + 1 : here.stop + 1] = first + ends

    def drawing(self, step: StepInput, shape: Shape) -> slice:
        """Where in ``logits`` and ``drawn`` the rows of ``step`` stand that yield a token; no other stands before them in it."""
        first = _place(step, shape).start
        return slice(first, first + int(step.samples.sum()))

    def send(self, control: Control[np.ndarray]) -> Control[torch.Tensor]:
        """Take ``control`` to the device, in place of that of the step before."""
        rows, contexts, *rest = self._courier.send_to(self._control, control.arrays())
        options, chunks = rest[: len(control.options)], rest[len(control.options) :]
        return Control(control.shape, rows, contexts, SamplingOptions(*options), Chunks(*chunks) if chunks else None)

    def forward(self, control: Control[torch.Tensor], kv: Sequence[torch.Tensor]) -> None:
        """Compute the ``logits`` of each row's last token over ``kv``, one layer's cache each."""
        rows, chunks, state = control.rows, control.chunks, self._state
        inputs = self._kernels.decode_inputs(rows, control.contexts, state.newest, state.page_tables, self._page_size)
        if chunks is not None:
            inputs = self._with_chunks(inputs, chunks, control.shape.decodes)
        cu_query = None if chunks is None else chunks.cu_query
        attention = AttentionContext(
            inputs.positions, inputs.slots, inputs.page_table, inputs.context_lens, control.shape.decodes, cu_query,
            control.shape.tokens,
        )  # fmt: skip
        hidden = self._decoder.forward(inputs.token_ids, attention, kv)
        if chunks is not None:
            hidden = hidden.index_select(0, chunks.last)
        self._decoder.logits(hidden, self.logits[: len(rows)])

    def _with_chunks(self, inputs: DecodeInputs, chunks: Chunks[torch.Tensor], decodes: int) -> DecodeInputs:
        """``inputs`` with the tokens of the chunks in place of one for each prompt's row."""
        size, real = self._page_size, chunks.positions >= 0
        positions = chunks.positions.clamp(min=0)
        page = inputs.page_table[chunks.places, positions // size].to(torch.int64)
        slots = torch.where(real, page * size + positions % size, -1)
        return inputs._replace(
            token_ids=torch.cat([inputs.token_ids[:decodes], chunks.token_ids]),
            positions=torch.cat([inputs.positions[:decodes], positions]),
            slots=torch.cat([inputs.slots[:decodes], slots]),
        )

    def sample(self, control: Control[torch.Tensor]) -> None:
        """Draw from the ``logits`` what is each row's newest token from now on, and let decodes be a token longer."""
        rows, chunks = control.rows, control.chunks
        logits, drawn = (tensor[: len(rows)] for tensor in (self.logits, self.drawn))
        self._kernels.sample(logits, *control.options, control.contexts, out=drawn)
        self._state.newest.index_copy_(0, rows if chunks is None else chunks.keepers, drawn)
        if chunks is None:
            control.contexts.add_(1)


def _place(step: StepInput, shape: Shape) -> slice:
    """Where the rows of ``step`` stand, side by side: with chunks, padding for the decodes comes before them."""
    first = shape.decodes - step.num_decodes if shape.tokens else 0
    return slice(first, first + len(step.rows))
