"""Attention of one query per row over its pages, in plain torch. Knows no scheduler."""

import torch
from torch.nn.functional import scaled_dot_product_attention

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
    lengths = context_lens.tolist()
    longest = max(lengths, default=0)
    if longest == 0:
        return torch.zeros_like(q)
    if len(lengths) == 1:
        return _alone(q, kv, page_table, longest, scale)
    if longest - sum(lengths) / len(lengths) > _WORTHWHILE_PADDING:
        rows = zip(q.split(1), page_table.split(1), lengths, strict=True)
        return torch.cat([_alone(query, kv, pages, length, scale) for query, pages, length in rows])
    keys, values = gather(kv, page_table[:, : -(-longest // kv.shape[3])])
    seen = torch.arange(keys.shape[2], dtype=torch.int32) < context_lens[:, None]
    out = scaled_dot_product_attention(_grouped(q, kv), keys, values, attn_mask=seen[:, None, None], scale=scale).reshape(q.shape)
    return out if min(lengths) else out.masked_fill_((context_lens == 0)[:, None, None], 0)


def _alone(q: torch.Tensor, kv: torch.Tensor, pages: torch.Tensor, length: int, scale: float) -> torch.Tensor:
    if length == 0:
        return torch.zeros_like(q)
    keys, values = gather(kv, pages[:, : -(-length // kv.shape[3])])[..., :length, :]
    return scaled_dot_product_attention(_grouped(q, kv), keys, values, scale=scale).reshape(q.shape)


def _grouped(q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
    """The heads that share a KV head as queries of one head: [R, num_kv_heads, group, D]."""
    return q.reshape(q.shape[0], kv.shape[2], -1, q.shape[2])
