"""``Batch``: one ``StepInput`` as tensors on the device. Knows pages and positions, no model."""

from typing import NamedTuple

import numpy as np
import torch

from octavo.engine.step import StepInput
from octavo.models.attention import AttentionContext
from octavo.runtime.courier import Courier
from octavo.runtime.state import RowState


class Batch(NamedTuple):
    """What the decoder and the sampler are given, over T tokens of which S yield a new one.

    ``token_ids``: int64 [T]. ``last``: int64 [S], the places in T that are sampled from; None if that is all of them.
    ``rows``: int64 [S], whom these belong to. ``positions``: int64 [S], how many tokens stand before each new one.
    """

    token_ids: torch.Tensor
    attention: AttentionContext
    last: torch.Tensor | None
    rows: torch.Tensor
    positions: torch.Tensor


def build_batch(step: StepInput, picks: np.ndarray, state: RowState, page_size: int, courier: Courier) -> Batch:
    """Lay out one step: a slot and a position for each token. ``picks``: the places in ``step.rows`` that sample."""
    ends = np.cumsum(step.query_lens)
    owner = np.repeat(np.arange(len(step.rows)), step.query_lens)
    position = np.arange(len(owner)) + (step.context_lens - ends)[owner]
    sampled = [(ends - 1)[picks], step.rows[picks], step.context_lens[picks]]
    wide = [step.rows, step.token_ids.astype(np.int64), owner, position, *sampled]
    narrow = [step.context_lens.astype(np.int32), np.concatenate([np.zeros(1, np.int32), ends.astype(np.int32)])]
    rows, chunks, owners, positions, last, owned, stand, context_lens, cu_query = courier.send(wide + narrow)
    width = -(-int(step.context_lens.max()) // page_size)
    page_table = state.page_tables[:, :width].index_select(0, rows)
    slots = page_table[owners, positions // page_size].to(torch.int64) * page_size + positions % page_size
    decodes = step.num_decodes
    token_ids = torch.cat([state.newest[rows[:decodes]], chunks])
    longest = int(step.query_lens[decodes:].max(initial=0))
    attention = AttentionContext(positions, slots, page_table, context_lens, decodes, cu_query, longest)
    return Batch(token_ids, attention, None if len(picks) == len(owner) else last, owned, stand)
