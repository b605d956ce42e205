"""Attention of one query per row over its pages, in Triton: split-KV, the heads of a group packed into one matrix. No scheduler.

Memory-bound: reads 2 * context * num_kv_heads * D numbers of cache per row, once. Each program walks its run of the plan's tiles.
A unit, (row, KV head), that one program did alone is written as it is; the parts of any other lie in memory until the program that
comes last merges them, in order, by the log-sum-exp of each. The grid depends on shapes only, lengths are read on the device.
"""

import torch
import triton
import triton.language as tl

from octavo_kernels.hopper import after_predecessor, let_successor_start, pdl
from octavo_kernels.paged_decode_hopper import decode_on_hopper, fits_hopper
from octavo_kernels.plan_decode import FIELDS, TILE, DecodePlan

_LOG2_E = 1.4426950408889634
_PARTS = 8  # read at a time where they are merged


@triton.jit
def tile_offsets(table_ptr, start, length, page_stride, HEAD_DIM: tl.constexpr, PAGE: tl.constexpr, TILE: tl.constexpr):
    """Offsets (int64 [TILE]) of the tokens from ``start`` on in the cache, and which of them are below ``length``."""
    token = start + tl.arange(0, TILE)
    inside = token < length
    if PAGE % TILE == 0:
        page = tl.load(table_ptr + start // PAGE).to(tl.int64)
        offset = page * page_stride + ((start % PAGE) + tl.arange(0, TILE)) * HEAD_DIM
    else:
        page = tl.load(table_ptr + token // PAGE, inside, other=0).to(tl.int64)
        offset = page * page_stride + (token % PAGE) * HEAD_DIM
    return offset, inside


@triton.jit
def load_tile(ptr, offset, inside, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, MASKED: tl.constexpr):
    """A [TILE, BLOCK_D] tile of keys or values; with MASKED, tokens not ``inside`` come as zeros."""
    dim = tl.arange(0, BLOCK_D)
    at = ptr + offset[:, None] + dim[None, :]
    if MASKED:
        return tl.load(at, inside[:, None] & (dim < HEAD_DIM)[None, :], other=0)
    if HEAD_DIM == BLOCK_D:
        return tl.load(at)
    return tl.load(at, (dim < HEAD_DIM)[None, :], other=0)


@triton.jit
def fold(scores, values, acc, peak, mass):
    """One step of the online softmax (base 2) over a tile of ``scores`` [M, TILE] and ``values`` [TILE, D]."""
    new_peak = tl.maximum(peak, tl.max(scores, 1))
    weights = tl.exp2(scores - new_peak[:, None])
    decay = tl.exp2(peak - new_peak)
    mass = mass * decay + tl.sum(weights, 1)
    acc = tl.dot(weights.to(values.dtype), values, acc * decay[:, None], input_precision="ieee")
    return acc, new_peak, mass


@triton.jit
def _attend(
    q, keys_ptr, table_ptr, begin, end, page_stride, side_stride, scale,
    HEAD_DIM: tl.constexpr, PAGE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Softmax of the queries over a row's tokens from ``begin`` to ``end``: weighted values, peak of the scores and mass."""
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    peak = tl.full((BLOCK_M,), -float("inf"), tl.float32)
    mass = tl.zeros((BLOCK_M,), tl.float32)
    whole = end // TILE * TILE
    for start in range(begin, whole, TILE):
        offset, inside = tile_offsets(table_ptr, start, end, page_stride, HEAD_DIM, PAGE, TILE)
        keys = load_tile(keys_ptr, offset, inside, HEAD_DIM, BLOCK_D, MASKED=False)
        scores = tl.dot(q, tl.trans(keys), input_precision="ieee") * scale
        values = load_tile(keys_ptr + side_stride, offset, inside, HEAD_DIM, BLOCK_D, MASKED=False)
        acc, peak, mass = fold(scores, values, acc, peak, mass)
    if whole < end:
        offset, inside = tile_offsets(table_ptr, whole, end, page_stride, HEAD_DIM, PAGE, TILE)
        keys = load_tile(keys_ptr, offset, inside, HEAD_DIM, BLOCK_D, MASKED=True)
        scores = tl.where(inside[None, :], tl.dot(q, tl.trans(keys), input_precision="ieee") * scale, -float("inf"))
        values = load_tile(keys_ptr + side_stride, offset, inside, HEAD_DIM, BLOCK_D, MASKED=True)
        acc, peak, mass = fold(scores, values, acc, peak, mass)
    return acc, peak, mass


@triton.jit
def _merge(
    out_ptr, partial_ptr, lse_ptr, unit, first, parts, shift,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_D: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Write a unit whose ``parts`` lie in the slots from ``first`` on, the first of them ``shift`` slots further."""
    member = tl.arange(0, BLOCK_G)
    dim = tl.arange(0, BLOCK_D)
    real = (member < GROUP)[:, None] & (dim < HEAD_DIM)[None, :]
    total = tl.zeros((BLOCK_G, BLOCK_D), tl.float32)
    peak = tl.full((BLOCK_G,), -1e38, tl.float32)
    mass = tl.zeros((BLOCK_G,), tl.float32)
    for begin in range(0, parts, PARTS):
        part = begin + tl.arange(0, PARTS)
        at = (first + part + tl.where(part == 0, shift, 0))[:, None] * GROUP + member[None, :]
        lse = tl.load(lse_ptr + at, (part < parts)[:, None] & (member < GROUP)[None, :], other=-float("inf"), cache_modifier=".cg")
        there = (part < parts)[:, None, None] & real[None, :, :]
        values = tl.load(partial_ptr + at[:, :, None] * HEAD_DIM + dim[None, None, :], there, other=0, cache_modifier=".cg")
        new_peak = tl.maximum(peak, tl.max(lse, 0))
        weights = tl.exp2(lse - new_peak[None, :])
        decay = tl.exp2(peak - new_peak)
        total = total * decay[:, None] + tl.sum(values * weights[:, :, None], 0)
        mass = mass * decay + tl.sum(weights, 0)
        peak = new_peak
    merged = total / tl.where(mass > 0, mass, 1)[:, None]
    at = (unit.to(tl.int64) * GROUP + member)[:, None] * HEAD_DIM + dim[None, :]
    tl.store(out_ptr + at, merged.to(out_ptr.dtype.element_ty), real)


@triton.jit(do_not_specialize=["table_stride", "programs"])
def _decode_kernel(
    q_ptr, kv_ptr, table_ptr, lengths_ptr, tasks_ptr, arrivals_ptr, out_ptr, partial_ptr, lse_ptr,
    q_stride, page_stride, side_stride, head_stride, table_stride, programs, scale,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_G: tl.constexpr, BLOCK_D: tl.constexpr, TILE: tl.constexpr, FIELDS: tl.constexpr, PARTS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    let_successor_start(PDL)
    after_predecessor(PDL)
    program = tl.program_id(0)
    task = tasks_ptr + program * FIELDS
    unit, tile, left, share = tl.load(task), tl.load(task + 1), tl.load(task + 2), tl.load(task + 3)
    position = program * share
    slot = program
    member = tl.arange(0, BLOCK_M)
    dim = tl.arange(0, BLOCK_D)
    packed = (member < GROUP)[:, None] & (dim < HEAD_DIM)[None, :]
    while left > 0:
        row = (unit // KV_HEADS).to(tl.int64)
        kv_head = unit % KV_HEADS
        length = tl.load(lengths_ptr + row)
        tiles = tl.maximum(tl.cdiv(length, TILE), 1)
        take = tl.minimum(left, tiles - tile)
        at = (kv_head * GROUP + member)[:, None] * HEAD_DIM + dim[None, :]
        q = tl.load(q_ptr + row * q_stride + at, packed, other=0)
        acc, peak, mass = _attend(
            q, kv_ptr + kv_head * head_stride, table_ptr + row * table_stride,
            tile * TILE, tl.minimum(length, (tile + take) * TILE), page_stride, side_stride, scale,
            HEAD_DIM, PAGE, BLOCK_M, BLOCK_D, TILE,
        )  # fmt: skip
        acc = acc / tl.where(mass > 0, mass, 1)[:, None]
        if take == tiles:
            tl.store(out_ptr + row * KV_HEADS * GROUP * HEAD_DIM + at, acc.to(out_ptr.dtype.element_ty), packed)
        else:
            part = slot * GROUP + member
            tl.store(partial_ptr + part[:, None] * HEAD_DIM + dim[None, :], acc, packed)
            tl.store(lse_ptr + part, peak + tl.log2(mass), member < GROUP)
            begin = position - tile
            first = begin // share
            parts = (begin + tiles - 1) // share - first + 1
            tl.debug_barrier()
            if tl.atomic_add(arrivals_ptr + unit, 1, sem="acq_rel") == parts - 1:
                tl.store(arrivals_ptr + unit, 0)
                shift = tl.where(begin % share > 0, programs, 0)
                _merge(out_ptr, partial_ptr, lse_ptr, unit, first, parts, shift, GROUP, HEAD_DIM, BLOCK_G, BLOCK_D, PARTS)
        left -= take
        position += take
        unit += 1
        tile = 0
        slot = program + programs  # what a program ends with, begun at its first tile but not finished, lies behind the rest


def paged_decode(
    q: torch.Tensor, kv: torch.Tensor, page_table: torch.Tensor, context_lens: torch.Tensor, scale: float, plan: "DecodePlan",
    out: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """Attend ``q`` [R, H, D] to the first ``context_lens[r]`` tokens of each row; returns [R, H, D].

    ``kv``: [num_pages, 2, num_kv_heads, page_size, D]. ``page_table``: int32 [R, P], a row's pages in order; entries behind the
    row's length are not read. ``context_lens``: int32 [R]; a row of length 0 gives zeros. ``plan``: ``plan_decode`` of these
    lengths. ``out`` [R, H, D], packed: written and returned, if there is one.
    """
    rows, heads, head_dim = q.shape
    if out is None:
        out = torch.empty((rows, heads, head_dim), dtype=q.dtype, device=q.device)
    if not rows:
        return out
    programs, group = plan.tasks.shape[0], heads // kv.shape[2]
    partial = torch.empty((2 * programs, group, head_dim), dtype=torch.float32, device=q.device)
    lse = torch.empty((2 * programs, group), dtype=torch.float32, device=q.device)
    if fits_hopper(q, kv):
        decode_on_hopper(q, kv, page_table, context_lens, scale * _LOG2_E, plan, out, partial, lse)
    else:
        _decode_anywhere(q, kv, page_table, context_lens, scale * _LOG2_E, plan, out, partial, lse)
    return out


def _decode_anywhere(
    q: torch.Tensor, kv: torch.Tensor, page_table: torch.Tensor, context_lens: torch.Tensor, scale: float, plan: DecodePlan,
    out: torch.Tensor, partial: torch.Tensor, lse: torch.Tensor,
) -> None:  # fmt: skip
    _, heads, head_dim = q.shape
    _, _, kv_heads, page_size, _ = kv.shape
    programs, group = plan.tasks.shape[0], heads // kv_heads
    block_g, block_d = triton.next_power_of_2(group), triton.next_power_of_2(head_dim)
    launch = pdl(q.device)
    _decode_kernel[(programs,)](
        q, kv, page_table, context_lens, plan.tasks, plan.arrivals, out, partial, lse,
        q.stride(0), *kv.stride()[:3], page_table.stride(0), programs, scale,
        KV_HEADS=kv_heads, GROUP=group, HEAD_DIM=head_dim, PAGE=page_size, BLOCK_M=max(16, block_g), BLOCK_G=block_g,
        BLOCK_D=block_d, TILE=TILE, FIELDS=FIELDS, PARTS=max(1, min(_PARTS, 8192 // (block_g * block_d))), PDL=launch.PDL,
        num_warps=8 if block_d > 128 else 4, num_stages=2 if block_d * q.element_size() > 256 else 3, **launch.options,
    )  # fmt: skip
