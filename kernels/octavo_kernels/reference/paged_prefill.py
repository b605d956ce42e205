"""Causal attention of chunks of queries over their rows' pages, in plain torch. Knows no scheduler."""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from octavo_kernels.reference.pages import gather


def paged_prefill(
    q: torch.Tensor,
    kv: torch.Tensor,
    page_table: torch.Tensor,
    cu_query: torch.Tensor,
    context_lens: torch.Tensor,
    max_query_len: int,
    scale: float,
    plan: Any,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attend the queries ``q`` [T, H, D] of R rows, laid end to end, each to its row's tokens up to itself; returns [T, H, D].

    ``kv``: [num_pages, 2, num_kv_heads, page_size, D]. ``page_table``: int32 [R, P]. ``cu_query``: int32 [R + 1], row r's
    queries are ``cu_query[r]`` to ``cu_query[r + 1]``, at most ``max_query_len`` of them. ``context_lens``: int32 [R], tokens of
    the row including these, so that query i stands at position ``context_len - query_len + i``. ``out`` [T, H, D], packed:
    written and returned, if there is one.
    """
    if out is None:
        out = torch.empty(q.shape, dtype=q.dtype)
    starts = cu_query.tolist()
    for row, length in enumerate(context_lens.tolist()):
        chunk = slice(starts[row], starts[row + 1])
        if chunk.stop > chunk.start:
            out[chunk] = _row(q[chunk], kv, page_table[row], length, scale)
    return out


def _row(q: torch.Tensor, kv: torch.Tensor, pages: torch.Tensor, length: int, scale: float) -> torch.Tensor:
    keys, values = gather(kv, pages[None, : -(-length // kv.shape[3])])[..., :length, :]
    fresh = q.shape[0] == length
    seen = None if fresh else torch.ones(q.shape[0], length, dtype=torch.bool).tril(length - q.shape[0])
    heads = q.transpose(0, 1)[None]
    out = scaled_dot_product_attention(heads, keys, values, attn_mask=seen, is_causal=fresh, scale=scale, enable_gqa=True)
    return out[0].transpose(0, 1)
