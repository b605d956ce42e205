"""Attention of one query per row over its pages, in plain torch. Knows no scheduler."""

from typing import NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention

from octavo_kernels.reference.memo import of_last_call
from octavo_kernels.reference.pages import gather

# Padding costs about 0.25 us per token and row, a row of its own about 60 us more: alone is cheaper from this many on.
_WORTHWHILE_PADDING = 256


def paged_decode(
    q: torch.Tensor, kv: torch.Tensor, page_table: torch.Tensor, context_lens: torch.Tensor, scale: float
) -> torch.Tensor:
    """Attend ``q`` [R, H, D] to the first ``context_lens[r]`` tokens of each row; returns [R, H, D].

    ``kv``: [num_pages, 2, num_kv_heads, page_size, D]. ``page_table``: int32 [R, P], a row's pages in order, padded with any
    valid page. ``context_lens``: int32 [R]; a row of length 0 gives zeros. What lies in the cache behind a row's length does not
    count, but on a CPU it must be finite (a masked NaN is still a NaN): start with zeros, ``rope_cache`` adds finite numbers only.
    """
    plan = _plan(context_lens, kv.shape[3], q.dtype)
    if plan.apart:
        rows = zip(q.split(1), page_table.split(1), context_lens.split(1), strict=True)
        return torch.cat([paged_decode(query, kv, pages, length, scale) for query, pages, length in rows])
    if plan.longest == 0:
        return torch.zeros_like(q)
    keys, values = gather(kv, page_table.narrow(1, 0, plan.pages)).narrow(3, 0, plan.longest).unbind()
    # The heads that share a KV head are queries of one head.
    grouped = q.reshape(q.shape[0], kv.shape[2], -1, q.shape[2])
    out = scaled_dot_product_attention(grouped, keys, values, attn_mask=plan.mask, scale=scale).reshape(q.shape)
    return out if plan.empty is None else out.masked_fill_(plan.empty, 0)


class _Plan(NamedTuple):
    """What the lengths alone decide. ``mask`` [R, 1, 1, longest] is added to the scores; ``empty`` [R, 1, 1]: rows of length 0."""

    apart: bool
    longest: int
    pages: int
    mask: torch.Tensor | None
    empty: torch.Tensor | None


@of_last_call
def _plan(context_lens: torch.Tensor, page_size: int, dtype: torch.dtype) -> _Plan:
    lengths = context_lens.tolist()
    longest, shortest = max(lengths, default=0), min(lengths, default=0)
    apart = longest - sum(lengths) / max(1, len(lengths)) > _WORTHWHILE_PADDING
    mask = empty = None
    if shortest < longest and not apart:
        behind = torch.arange(longest) >= context_lens[:, None]
        mask = torch.zeros(behind.shape, dtype=dtype).masked_fill_(behind, -torch.inf)[:, None, None]
        empty = (context_lens == 0)[:, None, None] if shortest == 0 else None
    return _Plan(apart, longest, -(-longest // page_size), mask, empty)
