"""``SamplingTable``: what the sampler knows of each row of the device, from a ``RowStart`` until the next one. Knows no schedule.

What every row has lies in arrays indexed by row; what few rows ask for lies in dictionaries, so that a plain batch pays nothing.
"""

from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch

from octavo.engine.step import RowStart
from octavo.sampling import SamplingParams


class HeldBack(NamedTuple):
    """Tokens (int64) that may not be drawn while fewer than ``until`` tokens stand before the new one (``min_tokens``)."""

    token_ids: np.ndarray
    until: int


class Bias(NamedTuple):
    """What is added to the logits of some tokens: int64 and float32, equally long."""

    token_ids: np.ndarray
    values: np.ndarray


class PromptScoring(NamedTuple):
    """A prompt (int32) whose tokens are to be scored, each with its ``rivals`` likeliest tokens."""

    token_ids: np.ndarray
    rivals: int


Array = TypeVar("Array", np.ndarray, torch.Tensor)


class SamplingOptions(NamedTuple, Generic[Array]):
    """What the sampling kernel takes of S rows between the logits and the positions, in its order; see ``reference.sample``."""

    temperature: Array
    top_k: Array
    top_p: Array
    min_p: Array
    seed: Array
    sample_index: Array


class SamplingTable:
    """The sampling state of every row. ``changes`` grows whenever a row is set up anew."""

    def __init__(self, max_rows: int, vocab_size: int) -> None:
        """Rows ``0 .. max_rows``, none set up; the last one belongs to nobody, and is greedy."""
        self._vocab_size = vocab_size
        self.changes = 0
        self._options = SamplingOptions(
            temperature=np.zeros(max_rows + 1, np.float32),
            top_k=np.zeros(max_rows + 1, np.int32),
            top_p=np.ones(max_rows + 1, np.float32),
            min_p=np.zeros(max_rows + 1, np.float32),
            seed=np.zeros(max_rows + 1, np.int64),
            sample_index=np.zeros(max_rows + 1, np.int32),
        )
        self.biases: dict[int, Bias] = {}
        self.held_back: dict[int, HeldBack] = {}
        self.logprobs: dict[int, int] = {}
        self.prompts: dict[int, PromptScoring] = {}

    def start(self, start: RowStart) -> None:
        """Set up one row for a request, new or come back; nothing of its former owner stays."""
        row, sampling, options = start.row, start.sampling, self._options
        self.changes += 1
        for asked in (self.biases, self.held_back, self.logprobs, self.prompts):
            asked.pop(row, None)
        options.temperature[row] = 0.0 if sampling.greedy else sampling.temperature
        options.top_k[row] = sampling.top_k if 0 < sampling.top_k < self._vocab_size else 0
        options.top_p[row] = sampling.top_p
        options.min_p[row] = sampling.min_p
        options.seed[row] = start.seed
        options.sample_index[row] = start.sample_index
        self._take_wishes(start, sampling)

    def options(self, rows: np.ndarray) -> SamplingOptions[np.ndarray]:
        """Those of ``rows`` (int64 [S])."""
        return SamplingOptions(*(column[rows] for column in self._options))

    def _take_wishes(self, start: RowStart, sampling: SamplingParams) -> None:
        row, prompt = start.row, start.token_ids[: start.num_prompt_tokens]
        if sampling.logit_bias:
            self.biases[row] = Bias(
                np.array([*sampling.logit_bias], np.int64), np.array([*sampling.logit_bias.values()], np.float32)
            )
        ends = np.array(sorted({*start.eos_token_ids, *sampling.stop_token_ids}), np.int64)
        if sampling.min_tokens and len(ends):
            self.held_back[row] = HeldBack(ends, start.num_prompt_tokens + sampling.min_tokens)
        if sampling.logprobs is not None:
            self.logprobs[row] = sampling.logprobs
        if start.scores_prompt and sampling.prompt_logprobs is not None:
            self.prompts[row] = PromptScoring(prompt.copy(), sampling.prompt_logprobs)
