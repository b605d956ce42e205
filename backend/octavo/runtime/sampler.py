"""``Sampler``: what rows ask for beside a draw: biases, penalties, logprobs. Knows rows and logits, no model.

The order is vLLM's: logprobs are of the raw logits; then logit_bias and min_tokens, then penalties, then what a grammar allows,
then temperature and filters, which are the sampling kernel's. What a grammar allows is known last, and the device waits for it.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch

from octavo.engine.step import Masks, RowStart
from octavo.runtime.courier import Courier
from octavo.runtime.penalties import PenaltyTable
from octavo.runtime.rows import SamplingTable
from octavo_kernels import Kernels


class Asked(NamedTuple):
    """Rows that want logprobs: ``counts`` maps their place among those that are drawn to how many; ``logits`` are theirs, raw."""

    counts: dict[int, int]
    logits: torch.Tensor


class Sampler:
    """Edits the logits of rows of a ``SamplingTable`` and of a ``PenaltyTable``."""

    def __init__(self, table: SamplingTable, penalties: PenaltyTable, kernels: Kernels, courier: Courier) -> None:
        """``courier`` goes to the device of the logits."""
        self._table = table
        self._penalties = penalties
        self._kernels = kernels
        self._courier = courier
        self._rows = np.zeros(0, np.int64)
        self._places: Mapping[int, int] = {}

    def start(self, start: RowStart) -> None:
        """Set up one row for a request, new or come back."""
        self._table.start(start)
        self._penalties.start(start)

    def edit(self, logits: torch.Tensor, rows: np.ndarray, positions: np.ndarray) -> Asked | None:
        """Change ``logits`` (float32 [S, V]) as ``rows`` (int64 [S]) ask; returns what is kept of them for logprobs.

        ``positions``: [S], how many tokens stand before the new one.
        """
        table = self._table
        asking = table.logprobs
        counts = {at: asking[row] for at, row in enumerate(rows.tolist()) if row in asking} if asking else {}
        asked = Asked(counts, logits[list(counts)]) if counts else None
        self._add_biases(logits, rows, positions)
        if len(self._penalties.of(rows)):
            self._penalties.apply(logits, rows)
        return asked

    def restrict(self, logits: torch.Tensor, rows: np.ndarray, masks: Masks) -> None:
        """Leave in ``logits`` (float32 [S, V]) what ``masks``, of rows of any step, allow ``rows`` (int64 [S])."""
        if not masks.places:
            return
        if masks.places != self._places or not np.array_equal(rows, self._rows):  # in most steps they are those of the step before
            masked = [(at, masks.places[row]) for at, row in enumerate(rows.tolist()) if row in masks.places]
            self._masked = self._courier.send([*np.array(masked, np.int64).reshape(-1, 2).T.copy()])
            self._rows, self._places = rows, masks.places
        masked_rows, places = self._masked
        self._kernels.apply_mask(logits, masked_rows, self._courier.share(masks.board), places)

    def count(self, rows: np.ndarray, tokens: torch.Tensor) -> None:
        """``tokens`` (int64 [S]) were drawn for ``rows``."""
        penalised = self._penalties.of(rows)
        if len(penalised):
            self._penalties.count(rows, penalised, tokens)

    def _add_biases(self, logits: torch.Tensor, rows: np.ndarray, positions: np.ndarray) -> None:
        table = self._table
        if not table.biases and not table.held_back:
            return
        places, token_ids, values = [], [], []
        for at, row in enumerate(rows.tolist()):
            if bias := table.biases.get(row):
                places.append(np.full(len(bias.token_ids), at))
                token_ids.append(bias.token_ids)
                values.append(bias.values)
            if (held := table.held_back.get(row)) and positions[at] < held.until:
                places.append(np.full(len(held.token_ids), at))
                token_ids.append(held.token_ids)
                values.append(np.full(len(held.token_ids), -np.inf, np.float32))
        if places:
            place, token, value = self._courier.send([np.concatenate(column) for column in (places, token_ids, values)])
            logits.index_put_((place, token), value, accumulate=True)
