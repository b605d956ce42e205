"""``DecodeStep``: a step in which every row decodes, over state that stays on the device. Knows a decoder, a sampler, no graph.

It is two parts: the forward pass up to the logits, and the sampling, which also moves every row on by a token. Between them the
logits may be changed for what only few rows ask.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from octavo.models.attention import AttentionContext
from octavo.models.decoder import Decoder
from octavo.runtime.courier import Courier, packed_bytes
from octavo.runtime.rows import SamplingTable
from octavo.runtime.state import RowState
from octavo_kernels import Kernels

# Below every context: the row is padding, now and after any number of steps.
PADDING = -(2**62)


class Control(NamedTuple):
    """What a step takes of the host: whose rows, how long they will be, and how each of them samples.

    ``rows`` and ``contexts``: int64 [R], see ``decode_inputs``. ``options``: what the sampling kernel takes beside the logits.
    """

    rows: torch.Tensor
    contexts: torch.Tensor
    options: list[torch.Tensor]


class DecodeStep:
    """Steps of up to ``max_rows`` rows, one at a time: all of them have the same inputs, logits and results in memory.

    ``logits``: float32 [max_rows, V]. ``drawn``: int64 [max_rows].
    """

    def __init__(
        self, decoder: Decoder, kernels: Kernels, table: SamplingTable, state: RowState, courier: Courier, page_size: int,
        max_rows: int, device: torch.device,
    ) -> None:  # fmt: skip
        """``courier`` goes to ``device``, where ``decoder`` is."""
        self._decoder = decoder
        self._kernels = kernels
        self._table = table
        self._state = state
        self._courier = courier
        self._page_size = page_size
        self._control = torch.empty(packed_bytes(self.padding(max_rows)), dtype=torch.uint8, device=device)
        self.logits = torch.empty((max_rows, decoder.shape.vocab_size), dtype=torch.float32, device=device)
        self.drawn = torch.empty(max_rows, dtype=torch.int64, device=device)

    def padding(self, size: int) -> list[np.ndarray]:
        """What ``send`` takes for a step of nothing but padding."""
        rows = np.full(size, self._state.nobody)
        return [rows, np.full(size, PADDING), *self._table.options(rows)]

    def send(self, arrays: Sequence[np.ndarray]) -> Control:
        """``arrays``: what each field of ``Control`` holds, in their order."""
        rows, contexts, *options = self._courier.send_to(self._control, arrays)
        return Control(rows, contexts, options)

    def forward(self, control: Control, kv: Sequence[torch.Tensor]) -> None:
        """Compute the ``logits`` of the newest tokens over ``kv``, one layer's cache each."""
        rows, state = control.rows, self._state
        inputs = self._kernels.decode_inputs(rows, control.contexts, state.newest, state.page_tables, self._page_size)
        attention = AttentionContext(inputs.positions, inputs.slots, inputs.page_table, inputs.context_lens, len(rows))
        hidden = self._decoder.forward(inputs.token_ids, attention, kv)
        self._decoder.logits(hidden, self.logits[: len(rows)])

    def sample(self, control: Control) -> None:
        """Draw from the ``logits`` what is each row's newest token from now on."""
        logits, drawn = (tensor[: len(control.rows)] for tensor in (self.logits, self.drawn))
        self._kernels.sample(logits, *control.options, control.contexts, out=drawn)
        self._state.newest.index_copy_(0, control.rows, drawn)
        control.contexts.add_(1)
