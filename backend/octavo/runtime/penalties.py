"""Repetition, presence and frequency penalties, applied to the seen tokens' logits alone. Knows token ids, no model.

The definitions are vLLM's: repetition counts prompt and answer, presence and frequency count the answer only.
"""

from collections.abc import Sequence

import numpy as np
import torch

from octavo.runtime.courier import Courier
from octavo.sampling import SamplingParams


class SeenTokens:
    """The distinct tokens of one request, and how often its answer holds each."""

    def __init__(self, token_ids: np.ndarray, num_prompt_tokens: int, sampling: SamplingParams) -> None:
        """``token_ids``: int32 [n], the prompt and what was generated so far."""
        distinct, place = np.unique(token_ids, return_inverse=True)
        self._sampling = sampling
        self._place = {token: at for at, token in enumerate(distinct.tolist())}
        self._token_ids = distinct.astype(np.int64)
        self._counts = np.bincount(place[num_prompt_tokens:], minlength=len(distinct)).astype(np.float32)

    def add(self, token_id: int) -> None:
        """The answer goes on with ``token_id``."""
        at = self._place.setdefault(token_id, len(self._place))
        if at == len(self._token_ids):
            self._token_ids = np.concatenate([self._token_ids, np.zeros(at + 1, np.int64)])
            self._counts = np.concatenate([self._counts, np.zeros(at + 1, np.float32)])
        self._token_ids[at] = token_id
        self._counts[at] += 1

    @property
    def token_ids(self) -> np.ndarray:
        """int64 [d], each once."""
        return self._token_ids[: len(self._place)]

    @property
    def factors(self) -> np.ndarray:
        """float32 [d], what divides a positive logit and multiplies another one."""
        return np.full(len(self._place), self._sampling.repetition_penalty, np.float32)

    @property
    def costs(self) -> np.ndarray:
        """float32 [d], what is then taken from each logit."""
        counts = self._counts[: len(self._place)]
        return self._sampling.frequency_penalty * counts + self._sampling.presence_penalty * np.minimum(counts, 1)


def apply_penalties(logits: torch.Tensor, places: Sequence[int], seen: Sequence[SeenTokens], courier: Courier) -> None:
    """Change ``logits`` [S, V] in place; ``seen[i]`` belongs to row ``places[i]``."""
    row, token, factor, cost = courier.send(
        [
            np.repeat(places, [len(one.token_ids) for one in seen]),
            np.concatenate([one.token_ids for one in seen]),
            np.concatenate([one.factors for one in seen]),
            np.concatenate([one.costs for one in seen]),
        ]
    )
    logit = logits[row, token]
    logits[row, token] = torch.where(logit > 0, logit / factor, logit * factor) - cost
