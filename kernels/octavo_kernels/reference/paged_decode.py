"""Attention of one query per row over its pages, in plain torch. Knows no scheduler."""

import torch
from torch.nn.functional import scaled_dot_product_attention

from octavo_kernels.reference.pages import gather
from octavo_kernels.reference.plan_decode import DecodePlan


def paged_decode(
    q: torch.Tensor, kv: torch.Tensor, page_table: torch.Tensor, context_lens: torch.Tensor, scale: float, plan: "DecodePlan",
    out: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """Attend ``q`` [R, H, D] to the first ``context_lens[r]`` tokens of each row; returns [R, H, D].

    ``kv``: [num_pages, 2, num_kv_heads, page_size, D]. ``page_table``: int32 [R, P], a row's pages in order, padded with any
    valid page. ``context_lens``: int32 [R]; a row of length 0 gives zeros. ``plan``: ``plan_decode`` of these lengths.
    ``out`` [R, H, D], packed: written and returned, if there is one. What lies in the cache behind a row's length does not count,
    but on a CPU it must be finite (a masked NaN is still a NaN): start with zeros, ``rope_cache`` adds finite numbers only.
    """
    made = _attend(q, kv, page_table, context_lens, scale, plan)
    return made if out is None else out.copy_(made)


def _attend(
    q: torch.Tensor, kv: torch.Tensor, page_table: torch.Tensor, context_lens: torch.Tensor, scale: float, plan: "DecodePlan"
) -> torch.Tensor:
    if plan.apart:
        rows = zip(q.split(1), page_table.split(1), context_lens.split(1), plan.apart, strict=True)
        return torch.cat([_attend(query, kv, pages, length, scale, own) for query, pages, length, own in rows])
    if plan.longest == 0:
        return torch.zeros_like(q)
    pages = -(-plan.longest // kv.shape[3])
    keys, values = gather(kv, page_table.narrow(1, 0, pages)).narrow(3, 0, plan.longest).unbind()
    # The heads that share a KV head are queries of one head.
    grouped = q.reshape(q.shape[0], kv.shape[2], -1, q.shape[2])
    mask = None if plan.mask is None else plan.mask.to(q.dtype)
    out = scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=scale).reshape(q.shape)
    return out if plan.empty is None else out.masked_fill_(plan.empty, 0)
