"""Causal attention of chunks of queries over their rows' pages on Hopper (TMA, wgmma, specialised warps). Knows no scheduler.

A program takes 128 rows (consecutive queries of one row of the batch, for all heads that share a KV head) and goes through the keys
that they see from the last to the first. One warp loads pages into a ring of shared memory; two groups of four warps multiply, 64
rows each. The softmax of a tile of keys runs beside the product of the weights before it with their values, and beside the other
group's products.

A stage of the ring carries the keys of tile i and the values of tile i - 1: what one step of the loop reads.
"""

import torch
import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from octavo_kernels import hopper
from octavo_kernels.paged_decode import _LOG2_E

PAGE = gl.constexpr(64)
TILE = gl.constexpr(128)  # keys of a step: two pages
BLOCK_M = gl.constexpr(128)
_DTYPES = {torch.bfloat16: gl.bfloat16, torch.float16: gl.float16}


@gluon.jit
def _add(left, right):
    return left + right


@gluon.jit
def _locate(slot, cu_query_ptr, rows, BLOCK_Q: gl.constexpr):
    """Which row the ``slot``-th tile of queries belongs to, and how many tiles come before that row's."""
    lane = gl.arange(0, 128, gl.BlockedLayout([4], [32], [4], [0]))
    row, before, total = 0, 0, 0
    if rows > 1:
        for base in range(0, rows, 128):
            inside = base + lane < rows
            begin = gl.load(cu_query_ptr + base + lane, inside, 0)
            tiles = gl.cdiv(gl.load(cu_query_ptr + base + lane + 1, inside, 0) - begin, BLOCK_Q)
            reached = total + gl.associative_scan(tiles, 0, _add)
            passed = inside & (reached <= slot)
            row += gl.sum(passed.to(gl.int32), 0)
            before = gl.maximum(before, gl.max(gl.where(passed, reached, 0), 0))
            total = gl.max(reached, 0)
    return row, before


@gluon.jit
def _load(
    kv_desc, table_ptr, k_ring, v_ring, ready, free, key_row, value_row, page_rows, tiles, last_page,
    STAGES: gl.constexpr,
):  # fmt: skip
    """The loading warp: from the last tile of keys to the first."""
    SIDE_BYTES: gl.constexpr = TILE * k_ring.shape[2] * 2
    low, high = 0, 0
    next_low = gl.load(table_ptr + 2 * tiles - 2)
    next_high = gl.load(table_ptr + gl.minimum(2 * tiles - 1, last_page))
    for step in range(tiles + 1):
        low_before, high_before = low, high
        low, high = next_low * page_rows, next_high * page_rows
        at = gl.maximum(2 * (tiles - 2 - step), 0)
        next_low = gl.load(table_ptr + at)
        next_high = gl.load(table_ptr + gl.minimum(at + 1, last_page))
        stage = step % STAGES
        bar, keys, values = ready.index(stage), k_ring.index(stage), v_ring.index(stage)
        has_keys, has_values = step < tiles, step > 0
        mbarrier.wait(free.index(stage), (step // STAGES & 1) ^ 1)
        mbarrier.expect(bar, 2 * SIDE_BYTES, has_keys & has_values)
        mbarrier.expect(bar, SIDE_BYTES, has_keys != has_values)
        tma.async_copy_global_to_shared(kv_desc, [low + key_row, 0], bar, keys.slice(0, PAGE), has_keys)
        tma.async_copy_global_to_shared(kv_desc, [high + key_row, 0], bar, keys.slice(PAGE, PAGE), has_keys)
        tma.async_copy_global_to_shared(kv_desc, [low_before + value_row, 0], bar, values.slice(0, PAGE), has_values)
        tma.async_copy_global_to_shared(kv_desc, [high_before + value_row, 0], bar, values.slice(PAGE, PAGE), has_values)


@gluon.jit
def _softmax(scores, peak, mass, scale):
    """One step of the online softmax, base 2: weights, and how far what was summed before shrinks."""
    new_peak = gl.maximum(peak, gl.max(scores, 1) * scale)
    weights = gl.exp2(scores * scale - new_peak[:, None])
    decay = gl.exp2(peak - new_peak)
    return weights, decay, new_peak, mass * decay + gl.sum(weights, 1)


@gluon.jit
def _masked_softmax(scores, peak, mass, scale, position, start, S_LAYOUT: gl.constexpr):
    """The same for keys from ``start`` on of which not every query sees all; a row may have seen nothing yet."""
    column = start + gl.arange(0, TILE, gl.SliceLayout(0, S_LAYOUT))
    scores = gl.where(column[None, :] <= position[:, None], scores, -float("inf"))
    new_peak = gl.maximum(peak, gl.max(scores, 1) * scale)
    base = gl.where(new_peak > -float("inf"), new_peak, 0.0)
    weights = gl.exp2(scores * scale - base[:, None])
    decay = gl.exp2(peak - base)
    return weights, decay, new_peak, mass * decay + gl.sum(weights, 1)


@gluon.jit
def _rescale(acc, factor, O_LAYOUT: gl.constexpr):
    return acc * gl.convert_layout(factor, gl.SliceLayout(1, O_LAYOUT))[:, None]


@gluon.jit
def _score(q_tile, k_ring, stage, S_LAYOUT: gl.constexpr):
    """Start the scores of a stage's keys."""
    ROWS: gl.constexpr = q_tile.shape[0]
    zeros = gl.zeros([ROWS, TILE], gl.float32, S_LAYOUT)
    return warpgroup_mma(q_tile, k_ring.index(stage).permute((1, 0)), zeros, use_acc=False, is_async=True)


@gluon.jit
def _add_values(acc, weights, v_ring, stage, O_LAYOUT: gl.constexpr):
    """Start adding a stage's values, weighed."""
    p = gl.convert_layout(weights.to(v_ring.dtype), gl.DotOperandLayout(0, O_LAYOUT, 2))
    return warpgroup_mma(p, v_ring.index(stage), acc, is_async=True)


@gluon.jit
def _release(free, stage):
    """Tell the loading warp that this group has read the stage."""
    tl.debug_barrier()
    mbarrier.arrive(free.index(stage))


@gluon.jit
def _blank(values, inside):
    """Zero the values of tokens that are not ``inside``."""
    LAYOUT: gl.constexpr = inside.type.layout.parent
    held = values.load(LAYOUT)
    values.store(gl.where(inside[:, None], held, gl.zeros_like(held)))
    fence_async_shared()
    tl.debug_barrier()


@gluon.jit
def _members(first_query, queries, kv_head, PART: gl.constexpr, ROWS: gl.constexpr, GROUP: gl.constexpr, LAYOUT: gl.constexpr):
    """Query and head of each of a group's rows, and which rows there are."""
    member = PART * ROWS + gl.arange(0, ROWS, gl.SliceLayout(1, LAYOUT))
    # Opaque, or what follows from it would stay in registers from the first use (queries) to the last (outputs). The range that
    # the mask gives back keeps the division short.
    member = gl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [member], gl.int32, False, 1) & (BLOCK_M - 1)
    query = first_query + member // GROUP
    return query, kv_head * GROUP + member % GROUP, (query < queries) & (member < BLOCK_M // GROUP * GROUP)


@gluon.jit
def _take(tile, q_ptr, stride, first_query, queries, kv_head, PART: gl.constexpr, GROUP: gl.constexpr, IO: gl.constexpr):
    """Read a group's queries into shared memory."""
    ROWS: gl.constexpr = tile.shape[0]
    HEAD_DIM: gl.constexpr = tile.shape[1]
    query, head, packed = _members(first_query, queries, kv_head, PART, ROWS, GROUP, IO)
    at = (query * stride + head * HEAD_DIM)[:, None] + gl.arange(0, HEAD_DIM, gl.SliceLayout(0, IO))[None, :]
    tile.store(gl.load(q_ptr + at, packed[:, None], 0.0))
    fence_async_shared()
    tl.debug_barrier()


@gluon.jit
def _put(tile, out_ptr, stride, first_query, queries, kv_head, PART: gl.constexpr, GROUP: gl.constexpr, IO: gl.constexpr):
    """Write a group's results from shared memory."""
    ROWS: gl.constexpr = tile.shape[0]
    HEAD_DIM: gl.constexpr = tile.shape[1]
    query, head, packed = _members(first_query, queries, kv_head, PART, ROWS, GROUP, IO)
    at = (query * stride + head * HEAD_DIM)[:, None] + gl.arange(0, HEAD_DIM, gl.SliceLayout(0, IO))[None, :]
    gl.store(out_ptr + at, tile.load(IO), packed[:, None])


@gluon.jit
def _attend(
    q_ptr, out_ptr, q_tiles, k_ring, v_ring, ready, free, first_query, queries, known, kv_head, tiles, whole,
    q_stride, scale, PART: gl.constexpr, STAGES: gl.constexpr, HEADS: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    """A multiplying group: its 64 rows."""
    ROWS: gl.constexpr = q_tiles.shape[1]
    HEAD_DIM: gl.constexpr = q_tiles.shape[2]
    S_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE, 16])
    O_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HEAD_DIM, 16])
    IO: gl.constexpr = gl.BlockedLayout([1, 8], [256 // HEAD_DIM, HEAD_DIM // 8], [4, 1], [1, 0])
    q_tile = q_tiles.index(PART)
    _take(q_tile, q_ptr, q_stride, first_query, queries, kv_head, PART, GROUP, IO)
    start = (tiles - 1) * TILE
    query, _, _ = _members(first_query, queries, kv_head, PART, ROWS, GROUP, S_LAYOUT)
    position = known + gl.minimum(query, queries - 1)
    peak = gl.full([ROWS], -float("inf"), gl.float32, gl.SliceLayout(1, S_LAYOUT))
    mass = gl.zeros_like(peak)
    mbarrier.wait(ready.index(0), 0)
    scores = warpgroup_mma_wait(0, (_score(q_tile, k_ring, 0, S_LAYOUT),))
    _release(free, 0)
    weights, _, peak, mass = _masked_softmax(scores, peak, mass, scale, position, start, S_LAYOUT)
    if start + TILE > known + queries:  # weight 0 would not undo a NaN behind the row's end
        mbarrier.wait(ready.index(1), 0)
        _blank(v_ring.index(1), start + gl.arange(0, TILE, gl.SliceLayout(1, IO)) < known + queries)

    acc = gl.zeros([ROWS, HEAD_DIM], gl.float32, O_LAYOUT)
    if tiles - whole > 1:  # the diagonal may touch two tiles
        mbarrier.wait(ready.index(1), 0)
        acc = warpgroup_mma_wait(0, (_add_values(acc, weights, v_ring, 1, O_LAYOUT),))
        scores = warpgroup_mma_wait(0, (_score(q_tile, k_ring, 1, S_LAYOUT),))
        _release(free, 1)
        weights, decay, peak, mass = _masked_softmax(scores, peak, mass, scale, position, start - TILE, S_LAYOUT)
        acc = _rescale(acc, decay, O_LAYOUT)
    for step in range(tiles - whole, tiles):
        stage = step % STAGES
        mbarrier.wait(ready.index(stage), step // STAGES & 1)
        scores = _score(q_tile, k_ring, stage, S_LAYOUT)
        acc = _add_values(acc, weights, v_ring, stage, O_LAYOUT)
        scores = warpgroup_mma_wait(1, (scores,))
        weights, decay, peak, mass = _softmax(scores, peak, mass, scale)
        acc = warpgroup_mma_wait(0, (acc,))
        _release(free, stage)
        acc = _rescale(acc, decay, O_LAYOUT)

    mbarrier.wait(ready.index(tiles % STAGES), tiles // STAGES & 1)
    acc = warpgroup_mma_wait(0, (_add_values(acc, weights, v_ring, tiles % STAGES, O_LAYOUT),))
    acc = _rescale(acc, 1 / mass, O_LAYOUT)
    q_tile.store(acc.to(q_tile.dtype))
    tl.debug_barrier()
    _put(q_tile, out_ptr, HEADS * HEAD_DIM, first_query, queries, kv_head, PART, GROUP, IO)


@gluon.jit(do_not_specialize=["rows", "page_rows", "table_stride"], do_not_specialize_on_alignment=["table_ptr", "lengths_ptr"])
def _prefill_hopper_kernel(
    q_ptr, kv_desc, table_ptr, cu_query_ptr, lengths_ptr, out_ptr, rows, q_stride, page_rows, table_stride, scale,
    KV_HEADS: gl.constexpr, GROUP: gl.constexpr, HEAD_DIM: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    BLOCK_Q: gl.constexpr = BLOCK_M // GROUP
    HEADS: gl.constexpr = KV_HEADS * GROUP
    kv_head, slot = gl.program_id(0), gl.program_id(1)
    row, before = _locate(slot, cu_query_ptr, rows, BLOCK_Q)
    if row >= rows:
        return
    begin = gl.load(cu_query_ptr + row)
    queries = gl.load(cu_query_ptr + row + 1) - begin
    length = gl.load(lengths_ptr + row)
    known = length - queries  # tokens that the cache held before this chunk
    first_query = (gl.cdiv(queries, BLOCK_Q) - 1 - (slot - before)) * BLOCK_Q  # the longest tiles of a row start first
    if first_query < 0:
        return
    tiles = gl.cdiv(gl.minimum(known + first_query + BLOCK_Q, length), TILE)
    whole = gl.minimum((known + first_query + 1) // TILE, tiles - 1)  # seen in full by every query, and not the first loaded
    q_ptr += begin.to(gl.int64) * q_stride
    out_ptr += begin.to(gl.int64) * (HEADS * HEAD_DIM)
    table_ptr += row.to(gl.int64) * table_stride

    q_tiles = gl.allocate_shared_memory(kv_desc.dtype, [2, BLOCK_M // 2, HEAD_DIM], kv_desc.layout)
    k_ring = gl.allocate_shared_memory(kv_desc.dtype, [STAGES, TILE, HEAD_DIM], kv_desc.layout)
    v_ring = gl.allocate_shared_memory(kv_desc.dtype, [STAGES, TILE, HEAD_DIM], kv_desc.layout)
    ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(ready.index(stage), 1)
        mbarrier.init(free.index(stage), 2)
    fence_async_shared()
    FIRST: gl.constexpr = 0
    SECOND: gl.constexpr = 1
    gl.warp_specialize(
        [
            (_attend, (q_ptr, out_ptr, q_tiles, k_ring, v_ring, ready, free, first_query, queries, known, kv_head,
                       tiles, whole, q_stride, scale, FIRST, STAGES, HEADS, GROUP)),
            (_attend, (q_ptr, out_ptr, q_tiles, k_ring, v_ring, ready, free, first_query, queries, known, kv_head,
                       tiles, whole, q_stride, scale, SECOND, STAGES, HEADS, GROUP)),
            (_load, (kv_desc, table_ptr, k_ring, v_ring, ready, free, kv_head * PAGE, (KV_HEADS + kv_head) * PAGE, page_rows, tiles,
                     (length - 1) // PAGE, STAGES)),
        ],
        [4, 1],
        [240, 24],
    )  # fmt: skip


def fits_hopper(q: torch.Tensor, kv: torch.Tensor) -> bool:
    """Whether ``prefill_on_hopper`` takes these: 16 bits, heads 64 or 128 wide, pages of 64 whose layers are runs of memory."""
    _, _, kv_heads, page_size, head_dim = kv.shape
    packed = kv.stride()[1:] == (kv_heads * page_size * head_dim, page_size * head_dim, head_dim, 1)
    return q.dtype in _DTYPES and head_dim in (64, 128) and page_size == PAGE.value and packed and hopper.is_hopper(q.device)


def prefill_on_hopper(
    q: torch.Tensor, kv: torch.Tensor, page_table: torch.Tensor, cu_query: torch.Tensor, context_lens: torch.Tensor, scale: float,
    out: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """``paged_prefill`` into ``out`` of tensors that ``fits_hopper``."""
    tokens, heads, head_dim = q.shape
    num_pages, _, kv_heads, page_size, _ = kv.shape
    rows, group, page_rows = context_lens.shape[0], heads // kv_heads, kv.stride(0) // head_dim
    slots = tokens // (BLOCK_M.value // group) + rows  # a row fills at most one tile only in part
    layout = gl.NVMMASharedLayout.get_default_for([page_size, head_dim], _DTYPES[kv.dtype])
    pool = [(num_pages - 1) * page_rows + 2 * kv_heads * page_size, head_dim]
    _prefill_hopper_kernel[(kv_heads, slots)](
        q, TensorDescriptor(kv, pool, [head_dim, 1], [page_size, head_dim], layout), page_table, cu_query, context_lens,
        out, rows, q.stride(0), page_rows, page_table.stride(0), scale * _LOG2_E,
        KV_HEADS=kv_heads, GROUP=group, HEAD_DIM=head_dim, STAGES=2, num_warps=4,
    )  # fmt: skip
    return out
