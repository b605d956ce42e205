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
    valid page. ``context_lens``: int32 [R]; a row of length 0 gives zeros. What lies behind a row's length is never used.
    """
    lengths = context_lens.tolist()
    longest = max(lengths)
    if longest == 0:
        return torch.zeros_like(q)
    if longest - sum(lengths) / len(lengths) <= _WORTHWHILE_PADDING and len(lengths) > 1:
        return _padded(q, kv, page_table, context_lens, longest, scale)
    rows = [_alone(q[row], kv, page_table[row], length, scale) for row, length in enumerate(lengths)]
    return torch.stack(rows)


def _alone(q: torch.Tensor, kv: torch.Tensor, pages: torch.Tensor, length: int, scale: float) -> torch.Tensor:
    if length == 0:
        return torch.zeros_like(q)
    keys, values = gather(kv, pages[None, : -(-length // kv.shape[3])])[..., :length, :]
    return scaled_dot_product_attention(_grouped(q[None], kv), keys, values, scale=scale).reshape(q.shape)


def _padded(
    q: torch.Tensor, kv: torch.Tensor, page_table: torch.Tensor, context_lens: torch.Tensor, longest: int, scale: float
) -> torch.Tensor:
    both = gather(kv, page_table[:, : -(-longest // kv.shape[3])])
    position = torch.arange(both.shape[3])
    row, token = (position >= context_lens[:, None]).nonzero(as_tuple=True)
    both[:, row, :, token] = 0  # a masked NaN is still a NaN, and a page's former owner may have left one
    # A row of length 0 attends to its first token, which is zero now.
    seen = (position < context_lens.clamp(min=1)[:, None])[:, None, None]
    return scaled_dot_product_attention(_grouped(q, kv), both[0], both[1], attn_mask=seen, scale=scale).reshape(q.shape)


def _grouped(q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
    """The heads that share a KV head as queries of one head: [R, num_kv_heads, group, D]."""
    return q.reshape(q.shape[0], kv.shape[2], -1, q.shape[2])
