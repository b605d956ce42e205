"""``Sampler``: from raw logits to one token per row, with what each row asked for on the way. Knows rows, no model.

The order is vLLM's: logprobs are of the raw logits; then logit_bias and min_tokens, then penalties, then temperature and filters.
"""

import numpy as np
import torch

from octavo.engine.messages import TokenLogprobs
from octavo.runtime.courier import Courier
from octavo.runtime.logprobs import token_logprobs
from octavo.runtime.penalties import apply_penalties
from octavo.runtime.rows import RowTable
from octavo_kernels import Kernels


class Sampler:
    """Draws tokens for rows of a ``RowTable``."""

    def __init__(self, kernels: Kernels, rows: RowTable, courier: Courier) -> None:
        """``courier`` goes to the device of the logits."""
        self._draw = kernels.sample
        self._rows = rows
        self._courier = courier
        self._options: list[torch.Tensor] = []
        self._options_of: tuple[int, bytes] | None = None

    def sample(
        self, logits: torch.Tensor, rows: np.ndarray, positions: np.ndarray, positions_there: torch.Tensor
    ) -> tuple[list[int], dict[int, TokenLogprobs]]:
        """One token for each of ``rows`` (int32 [S]), and logprobs by place in ``rows`` where they were asked for.

        ``logits``: float32 [S, V], overwritten. ``positions``: [S], how many tokens stand before the new one, on the host
        and (int64) on the device.
        """
        numbers = rows.tolist()
        asked = {at: self._rows.logprobs[row] for at, row in enumerate(numbers) if row in self._rows.logprobs}
        raw = logits[list(asked)] if asked else None
        self._add_biases(logits, numbers, positions)
        self._penalise(logits, numbers)
        drawn = self._draw(logits, *self._options_for(rows), positions_there)
        tokens = drawn.tolist()
        self._remember(numbers, tokens)
        if raw is None:
            return tokens, {}
        return tokens, dict(zip(asked, token_logprobs(raw, drawn[list(asked)], [*asked.values()]), strict=True))

    def _options_for(self, rows: np.ndarray) -> list[torch.Tensor]:
        """The sampling options of ``rows`` on the device, sent again only when the batch has changed."""
        batch = (self._rows.changes, rows.tobytes())
        if batch != self._options_of:
            table = self._rows
            columns = (table.temperature, table.top_k, table.top_p, table.min_p, table.seed, table.sample_index)
            self._options = self._courier.send([column[rows] for column in columns])
            self._options_of = batch
        return self._options

    def _add_biases(self, logits: torch.Tensor, rows: list[int], positions: np.ndarray) -> None:
        table = self._rows
        if not table.biases and not table.held_back:
            return
        places, token_ids, values = [], [], []
        for at, row in enumerate(rows):
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

    def _penalise(self, logits: torch.Tensor, rows: list[int]) -> None:
        penalised = [at for at, row in enumerate(rows) if row in self._rows.seen]
        if penalised:
            apply_penalties(logits, penalised, [self._rows.seen[rows[at]] for at in penalised], self._courier)

    def _remember(self, rows: list[int], tokens: list[int]) -> None:
        if self._rows.seen:
            for row, token in zip(rows, tokens, strict=True):
                if row in self._rows.seen:
                    self._rows.seen[row].add(token)
