"""``Batch``: one ``StepInput`` as tensors on the device. Knows pages and positions, no model."""

from typing import NamedTuple

import numpy as np
import torch

from octavo.engine.step import StepInput
from octavo.models.attention import AttentionContext
from octavo.runtime.courier import Courier


class Batch(NamedTuple):
    """What the decoder and the sampler are given, over T tokens of which S yield a new one.

    ``token_ids``: int64 [T]. ``last``: int64 [S], the places in T that are sampled from; None if that is all of them.
    ``positions``: int64 [S], how many tokens stand before each new one. ``picks``: the rows of the step that sample, [S].
    """

    token_ids: torch.Tensor
    attention: AttentionContext
    last: torch.Tensor | None
    positions: torch.Tensor
    picks: np.ndarray


def build_batch(step: StepInput, page_size: int, courier: Courier) -> Batch:
    """Lay out one step: a slot and a position for each token, and which of them are sampled from."""
    ends = np.cumsum(step.query_lens, dtype=np.int32)
    cu_query = np.concatenate([np.zeros(1, np.int32), ends])
    row = np.repeat(np.arange(len(step.rows)), step.query_lens)
    position = np.arange(len(step.token_ids)) + (step.context_lens - ends)[row]
    slot = step.page_table[row, position // page_size] * page_size + position % page_size
    picks = np.flatnonzero(step.samples)
    wide = [step.token_ids, position, slot, (ends - 1)[picks], step.context_lens[picks]]
    narrow = [step.page_table, step.context_lens, cu_query]
    there = courier.send([array.astype(np.int64) for array in wide] + narrow)
    token_ids, positions, slots, last, sampled_at, page_table, context_lens, cu_query_there = there
    longest = int(step.query_lens[step.num_decodes :].max(initial=0))
    attention = AttentionContext(positions, slots, page_table, context_lens, cu_query_there, step.num_decodes, longest)
    return Batch(token_ids, attention, None if len(picks) == len(step.token_ids) else last, sampled_at, picks)
