"""Causal attention of chunks of queries over their rows' pages, in Triton; on Hopper see ``paged_prefill_hopper``. No scheduler.

A program takes a tile of consecutive queries of one row for all heads that share a KV head (token-major), so keys and values are
read once a group. Tiles that every query sees in full need no mask; the rest, at the diagonal, come last. When all tiles are masked
ALIKE, every query sums its tiles by the same code, whatever queries lie beside it.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from octavo_kernels.paged_decode import _LOG2_E, fold, load_tile, tile_offsets
from octavo_kernels.paged_prefill_hopper import fits_hopper, prefill_on_hopper

_MANY = 64  # packed queries that fill the largest tile


@triton.jit(do_not_specialize=["table_stride"], do_not_specialize_on_alignment=["table_ptr", "lengths_ptr"])
def _prefill_kernel(
    q_ptr, kv_ptr, table_ptr, cu_query_ptr, lengths_ptr, out_ptr,
    q_stride, page_stride, side_stride, head_stride, table_stride, scale,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, TILE: tl.constexpr, ALIKE: tl.constexpr,
):  # fmt: skip
    BLOCK_Q: tl.constexpr = BLOCK_M // GROUP
    row = tl.program_id(2).to(tl.int64)
    kv_head = tl.program_id(1)
    first_query = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK_Q  # the longest tiles start first
    begin = tl.load(cu_query_ptr + row)
    queries = tl.load(cu_query_ptr + row + 1) - begin
    if first_query >= queries:
        return

    length = tl.load(lengths_ptr + row)
    known = length - queries  # tokens that the cache held before this chunk
    member = tl.arange(0, BLOCK_M)
    dim = tl.arange(0, BLOCK_D)
    query = first_query + member // GROUP
    head = kv_head * GROUP + member % GROUP
    packed = ((query < queries) & (member < BLOCK_Q * GROUP))[:, None] & (dim < HEAD_DIM)[None, :]
    token = (begin + query).to(tl.int64)
    q = tl.load(q_ptr + token[:, None] * q_stride + head[:, None] * HEAD_DIM + dim[None, :], packed, other=0)
    keys_ptr = kv_ptr + kv_head * head_stride
    table_ptr += row * table_stride

    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    peak = tl.full((BLOCK_M,), -float("inf"), tl.float32)
    mass = tl.zeros((BLOCK_M,), tl.float32)
    position = known + query
    end = tl.minimum(known + first_query + BLOCK_Q, length)
    whole = 0 if ALIKE else (known + first_query + 1) // TILE
    for tile in range(0, whole):
        offset, inside = tile_offsets(table_ptr, tile * TILE, end, page_stride, HEAD_DIM, PAGE, TILE)
        keys = load_tile(keys_ptr, offset, inside, HEAD_DIM, BLOCK_D, MASKED=False)
        scores = tl.dot(q, tl.trans(keys), input_precision="ieee") * scale
        values = load_tile(keys_ptr + side_stride, offset, inside, HEAD_DIM, BLOCK_D, MASKED=False)
        acc, peak, mass = fold(scores, values, acc, peak, mass)
    for tile in range(whole, tl.cdiv(end, TILE)):
        offset, inside = tile_offsets(table_ptr, tile * TILE, end, page_stride, HEAD_DIM, PAGE, TILE)
        keys = load_tile(keys_ptr, offset, inside, HEAD_DIM, BLOCK_D, MASKED=True)
        seen = tile * TILE + tl.arange(0, TILE)[None, :] <= position[:, None]
        scores = tl.where(seen, tl.dot(q, tl.trans(keys), input_precision="ieee") * scale, -float("inf"))
        values = load_tile(keys_ptr + side_stride, offset, inside, HEAD_DIM, BLOCK_D, MASKED=True)
        acc, peak, mass = fold(scores, values, acc, peak, mass)

    out_at = out_ptr + (token * KV_HEADS * GROUP + head)[:, None] * HEAD_DIM + dim[None, :]
    tl.store(out_at, (acc / tl.where(mass > 0, mass, 1)[:, None]).to(out_ptr.dtype.element_ty), packed)


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
    the row including these, so that query i stands at position ``context_len - query_len + i``. ``plan``: ``plan_prefill``'s.
    ``out`` [T, H, D], packed: written and returned, if there is one.
    """
    if out is None:
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    if plan is not None and fits_hopper(q, kv):
        return prefill_on_hopper(q, kv, page_table, scale, plan, out)
    return prefill_anywhere(q, kv, page_table, cu_query, context_lens, max_query_len, scale, out, alike=False)


def prefill_anywhere(
    q: torch.Tensor,
    kv: torch.Tensor,
    page_table: torch.Tensor,
    cu_query: torch.Tensor,
    context_lens: torch.Tensor,
    max_query_len: int,
    scale: float,
    out: torch.Tensor,
    alike: bool,
) -> torch.Tensor:
    """``paged_prefill`` into ``out`` by the portable kernel.

    ``alike``: a query's result depends on nothing but itself and its row's tokens.
    """
    _, heads, head_dim = q.shape
    _, _, kv_heads, page_size, _ = kv.shape
    group, block_d = heads // kv_heads, triton.next_power_of_2(head_dim)
    block_m, tile, warps, stages = _tiling(_MANY if alike else max_query_len * group, block_d, q.element_size())
    _prefill_kernel[(triton.cdiv(max_query_len, block_m // group), kv_heads, context_lens.shape[0])](
        q, kv, page_table, cu_query, context_lens, out,
        q.stride(0), *kv.stride()[:3], page_table.stride(0), scale * _LOG2_E,
        KV_HEADS=kv_heads, GROUP=group, HEAD_DIM=head_dim, PAGE=page_size,
        BLOCK_M=block_m, BLOCK_D=block_d, TILE=tile, ALIKE=alike,
        num_warps=warps, num_stages=stages, enable_fp_fusion=not alike,
    )  # fmt: skip
    return out


def _tiling(packed_queries: int, block_d: int, element_size: int) -> tuple[int, int, int, int]:
    """Rows of a query tile, tokens of a KV tile, warps and stages: what fits shared memory and registers of sm_80 and sm_90."""
    if element_size == 4:
        return 32, 32, 4, 1
    if block_d > 128:
        return min(_MANY, max(16, triton.next_power_of_2(packed_queries))), 32, 8, 2
    return min(_MANY, max(16, triton.next_power_of_2(packed_queries))), 64, 4, 2
