"""``PaddedStep``: a step of fixed shape, over state that stays on the device. Knows a decoder, a sampler, no graph.

It is two parts: the forward pass up to the logits, and the sampling, which also moves rows on by a token. Between them the logits
may be changed for what only few rows ask.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from octavo.engine.step import StepInput
from octavo.models.attention import AttentionContext
from octavo.models.decoder import Decoder
from octavo.runtime.courier import Courier, packed_bytes
from octavo.runtime.rows import SamplingTable
from octavo.runtime.shapes import Shape
from octavo.runtime.state import RowState
from octavo_kernels import Kernels
from octavo_kernels.reference.decode_inputs import DecodeInputs

# Below every context: the row is padding, now and after any number of steps.
PADDING = -(2**62)


class Chunks(NamedTuple):
    """The tokens of the chunks, T in all, laid end to end; padding comes last.

    ``token_ids``, ``places`` (in ``Control.rows``) and ``positions`` (-1 for padding): int64 [T]. ``last``: int64 [R], which of
    the step's tokens, decodes first, is each row's last. ``keepers``: int64 [R], whose newest token a drawn one becomes.
    ``cu_query``: int32 [R + 1], see ``AttentionContext``.
    """

    token_ids: torch.Tensor
    places: torch.Tensor
    positions: torch.Tensor
    last: torch.Tensor
    keepers: torch.Tensor
    cu_query: torch.Tensor


class Control(NamedTuple):
    """What a step takes of the host: whose rows, how long they will be, how each of them samples, and the chunks if there are any.

    ``rows`` and ``contexts``: int64 [R], see ``decode_inputs``. ``options``: what the sampling kernel takes beside the logits.
    """

    shape: Shape
    rows: torch.Tensor
    contexts: torch.Tensor
    options: list[torch.Tensor]
    chunks: Chunks | None


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
        most_bytes = max(packed_bytes(self.padding(shape)) for shape in shapes)
        self._control = torch.empty(most_bytes, dtype=torch.uint8, device=device)
        self.logits = torch.empty((most_rows, decoder.shape.vocab_size), dtype=torch.float32, device=device)
        self.drawn = torch.empty(most_rows, dtype=torch.int64, device=device)

    def padding(self, shape: Shape) -> list[np.ndarray]:
        """What ``send`` takes for a step of nothing but padding."""
        rows = np.full(shape.rows, self._state.nobody)
        control = [rows, np.full(shape.rows, PADDING), *self._table.options(rows)]
        if not shape.tokens:
            return control
        last = np.zeros(shape.rows, np.int64)
        last[: shape.decodes] = np.arange(shape.decodes)
        cu_query = np.minimum(np.arange(shape.rows + 1, dtype=np.int32), np.int32(shape.decodes))
        tokens, places, positions = (
            np.zeros(shape.tokens, np.int64),
            np.full(shape.tokens, shape.decodes),
            np.full(shape.tokens, -1),
        )
        return [*control, tokens, places, positions, last, rows.copy(), cu_query]

    def arrays(self, step: StepInput, shape: Shape) -> list[np.ndarray]:
        """What ``send`` takes for ``step``."""
        arrays, here = self.padding(shape), _place(step, shape)
        for padded, values in zip(arrays, [step.rows, step.context_lens, *self._table.options(step.rows)], strict=False):
            padded[here] = values
        if shape.tokens:
            token_ids, places, positions, last, keepers, cu_query = arrays[-len(Chunks._fields) :]
            lens, count = step.query_lens[step.num_decodes :], len(step.token_ids)
            ends, owner = np.cumsum(lens), np.repeat(np.arange(len(lens)), lens)
            token_ids[:count] = step.token_ids
            places[:count] = shape.decodes + owner
            positions[:count] = np.arange(count) + (step.context_lens[step.num_decodes :] - ends)[owner]
            last[shape.decodes : here.stop] = shape.decodes + ends - 1
            keepers[here] = np.where(step.samples, step.rows, self._state.nobody)
            cu_query[shape.decodes + 1 :] = shape.decodes + count
            cu_query[shape.decodes + 1 : here.stop + 1] = shape.decodes + ends
        return arrays

    def drawing(self, step: StepInput, shape: Shape) -> slice:
        """Where in ``logits`` and ``drawn`` the rows of ``step`` stand that yield a token; no other stands before them in it."""
        first = _place(step, shape).start
        return slice(first, first + int(step.samples.sum()))

    def send(self, shape: Shape, arrays: Sequence[np.ndarray]) -> Control:
        """``arrays``: of ``padding`` or ``arrays`` for ``shape``."""
        rows, contexts, *rest = self._courier.send_to(self._control, arrays)
        if not shape.tokens:
            return Control(shape, rows, contexts, rest, None)
        options = len(rest) - len(Chunks._fields)
        return Control(shape, rows, contexts, rest[:options], Chunks(*rest[options:]))

    def forward(self, control: Control, kv: Sequence[torch.Tensor]) -> None:
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

    def _with_chunks(self, inputs: DecodeInputs, chunks: Chunks, decodes: int) -> DecodeInputs:
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

    def sample(self, control: Control) -> None:
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
