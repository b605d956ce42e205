"""Causal attention of chunks of queries over their rows' pages on Hopper (TMA, wgmma, specialised warps). Knows no scheduler.

A program takes 64 rows a group of warps (consecutive queries of one row of the batch, for all heads that share a KV head) and goes
through its part of the keys that they see from the last to the first. One warp loads pages into a ring of shared memory; groups of
four warps multiply, 64 rows each. The softmax of a tile of keys runs beside the product of the weights before it with their values,
and beside the other groups' products.

A stage of the ring carries the keys of tile i and the values of tile i - 1: what one step of the loop reads. Where several programs
share a unit's keys (``plan_prefill``), each leaves its results in memory, and the last to arrive merges them, in order.
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
from octavo_kernels import plan_prefill as planning
from octavo_kernels.paged_decode import _LOG2_E
from octavo_kernels.plan_prefill import FIELDS, PrefillPlan

PAGE = gl.constexpr(64)
ROWS = gl.constexpr(planning.ROWS)
_SHARED_REGISTERS = 80  # of a thread, so that three programs of one group share a multiprocessor
_DTYPES = {torch.bfloat16: gl.bfloat16, torch.float16: gl.float16}


@gluon.jit
def _load(
    kv_desc, table_ptr, k_ring, v_ring, ready, free, key_row, value_row, page_rows, tiles, last_page,
):  # fmt: skip
    """The loading warp: from the last tile of keys to the first."""
    STAGES: gl.constexpr = k_ring.shape[0]
    TILE: gl.constexpr = k_ring.shape[1]
    PAGES: gl.constexpr = TILE // PAGE  # one or two
    SIDE_BYTES: gl.constexpr = TILE * k_ring.shape[2] * 2
    low, high = 0, 0
    next_low = gl.load(table_ptr + PAGES * (tiles - 1))
    next_high = gl.load(table_ptr + gl.minimum(PAGES * tiles - 1, last_page))
    for step in range(tiles + 1):
        low_before, high_before = low, high
        low, high = next_low * page_rows, next_high * page_rows
        at = gl.maximum(PAGES * (tiles - 2 - step), 0)
        next_low = gl.load(table_ptr + at)
        next_high = gl.load(table_ptr + gl.minimum(at + PAGES - 1, last_page))
        stage = step % STAGES
        bar, keys, values = ready.index(stage), k_ring.index(stage), v_ring.index(stage)
        has_keys, has_values = step < tiles, step > 0
        mbarrier.wait(free.index(stage), (step // STAGES & 1) ^ 1)
        mbarrier.expect(bar, 2 * SIDE_BYTES, has_keys & has_values)
        mbarrier.expect(bar, SIDE_BYTES, has_keys != has_values)
        tma.async_copy_global_to_shared(kv_desc, [low + key_row, 0], bar, keys.slice(0, PAGE), has_keys)
        if PAGES == 2:
            tma.async_copy_global_to_shared(kv_desc, [high + key_row, 0], bar, keys.slice(PAGE, PAGE), has_keys)
        tma.async_copy_global_to_shared(kv_desc, [low_before + value_row, 0], bar, values.slice(0, PAGE), has_values)
        if PAGES == 2:
            tma.async_copy_global_to_shared(kv_desc, [high_before + value_row, 0], bar, values.slice(PAGE, PAGE), has_values)


@gluon.jit
def _sums(weights):
    """Sums of each row, [ROWS, 4]: only of what a thread holds, so that no shuffle is needed before the end."""
    TILE: gl.constexpr = weights.shape[1]
    by_thread = weights.reshape([ROWS, TILE // 8, 4, 2])
    return gl.sum(gl.sum(by_thread, 3), 1)


@gluon.jit
def _decayed(mass, decay):
    return mass * gl.convert_layout(decay, gl.SliceLayout(1, mass.type.layout))[:, None]


@gluon.jit
def _softmax(scores, peak, mass, scale):
    """One step of the online softmax, base 2: weights, and how far what was summed before shrinks."""
    new_peak = gl.maximum(peak, gl.max(scores, 1) * scale)
    weights = gl.exp2(scores * scale - new_peak[:, None])
    decay = gl.exp2(peak - new_peak)
    return weights, decay, new_peak, _decayed(mass, decay) + _sums(weights)


@gluon.jit
def _masked_softmax(scores, peak, scale, position, start, S_LAYOUT: gl.constexpr):
    """The same for keys from ``start`` of which not every query sees all; rows may have seen nothing yet. The mass is theirs."""
    TILE: gl.constexpr = scores.shape[1]
    column = start + gl.arange(0, TILE, gl.SliceLayout(0, S_LAYOUT))
    scores = gl.where(column[None, :] <= position[:, None], scores, -float("inf"))
    new_peak = gl.maximum(peak, gl.max(scores, 1) * scale)
    base = gl.where(new_peak > -float("inf"), new_peak, 0.0)
    weights = gl.exp2(scores * scale - base[:, None])
    decay = gl.exp2(peak - base)
    return weights, decay, new_peak, _sums(weights)


@gluon.jit
def _rescale(acc, factor, O_LAYOUT: gl.constexpr):
    return acc * gl.convert_layout(factor, gl.SliceLayout(1, O_LAYOUT))[:, None]


@gluon.jit
def _score(q_tile, k_ring, stage, S_LAYOUT: gl.constexpr):
    """Start the scores of a stage's keys."""
    TILE: gl.constexpr = k_ring.shape[1]
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
def _members(first_query, queries, kv_head, PART: gl.constexpr, GROUPS: gl.constexpr, GROUP: gl.constexpr, LAYOUT: gl.constexpr):
    """Query and head of each of a group's rows, and which rows there are."""
    BLOCK_M: gl.constexpr = ROWS * GROUPS
    member = PART * ROWS + gl.arange(0, ROWS, gl.SliceLayout(1, LAYOUT))
    # Opaque, or what follows from it would stay in registers from the first use (queries) to the last (outputs). The range that
    # the mask gives back keeps the division short.
    member = gl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [member], gl.int32, False, 1) & 255
    query = first_query + member // GROUP
    return query, kv_head * GROUP + member % GROUP, (query < queries) & (member < BLOCK_M // GROUP * GROUP)


@gluon.jit
def _take(
    tile, q_ptr, stride, first_query, queries, kv_head,
    PART: gl.constexpr, GROUPS: gl.constexpr, GROUP: gl.constexpr, IO: gl.constexpr,
):  # fmt: skip
    """Read a group's queries into shared memory."""
    HEAD_DIM: gl.constexpr = tile.shape[1]
    query, head, packed = _members(first_query, queries, kv_head, PART, GROUPS, GROUP, IO)
    at = (query * stride + head * HEAD_DIM)[:, None] + gl.arange(0, HEAD_DIM, gl.SliceLayout(0, IO))[None, :]
    tile.store(gl.load(q_ptr + at, packed[:, None], 0.0))
    fence_async_shared()
    tl.debug_barrier()


@gluon.jit
def _put(
    tile, out_ptr, stride, first_query, queries, kv_head,
    PART: gl.constexpr, GROUPS: gl.constexpr, GROUP: gl.constexpr, IO: gl.constexpr,
):  # fmt: skip
    """Write a group's results from shared memory."""
    HEAD_DIM: gl.constexpr = tile.shape[1]
    query, head, packed = _members(first_query, queries, kv_head, PART, GROUPS, GROUP, IO)
    at = (query * stride + head * HEAD_DIM)[:, None] + gl.arange(0, HEAD_DIM, gl.SliceLayout(0, IO))[None, :]
    gl.store(out_ptr + at, tile.load(IO), packed[:, None])


@gluon.jit
def _leave(
    partial_ptr, lse_ptr, acc, peak, mass, first_query, queries, kv_head,
    PART: gl.constexpr, GROUPS: gl.constexpr, GROUP: gl.constexpr, O_LAYOUT: gl.constexpr,
):  # fmt: skip
    """Write a group's results over a part of the keys to this program's slot; -inf where a row saw none of them."""
    HEAD_DIM: gl.constexpr = acc.shape[1]
    _, _, packed = _members(first_query, queries, kv_head, PART, GROUPS, GROUP, O_LAYOUT)
    at = (gl.program_id(0) * GROUPS + PART) * ROWS + gl.arange(0, ROWS, gl.SliceLayout(1, O_LAYOUT))
    dim = gl.arange(0, HEAD_DIM, gl.SliceLayout(0, O_LAYOUT))
    gl.store(partial_ptr + at[:, None] * HEAD_DIM + dim[None, :], acc, packed[:, None])
    lse = gl.where(mass > 0, peak + gl.log2(mass), -float("inf"))
    gl.store(lse_ptr + at, gl.convert_layout(lse, gl.SliceLayout(1, O_LAYOUT)), packed)


@gluon.jit
def _read_part(partial_ptr, lse_ptr, at, packed, there, HEAD_DIM: gl.constexpr, LAYOUT: gl.constexpr):
    """A part's log-sum-exp and results: -inf and zeros if it is not ``there``."""
    dim = gl.arange(0, HEAD_DIM, gl.SliceLayout(0, LAYOUT))
    some = packed & there
    lse = gl.load(lse_ptr + at, some, other=-float("inf"), cache_modifier=".cg")
    return lse, gl.load(partial_ptr + at[:, None] * HEAD_DIM + dim[None, :], some[:, None], other=0.0, cache_modifier=".cg")


@gluon.jit
def _merge(
    out_ptr, partial_ptr, lse_ptr, stride, first_query, queries, kv_head, first, parts,
    PART: gl.constexpr, GROUPS: gl.constexpr, GROUP: gl.constexpr, KV_HEADS: gl.constexpr, HEAD_DIM: gl.constexpr,
):  # fmt: skip
    """Write a group's rows, whose ``parts`` lie in the slots ``first``, ``first`` + KV_HEADS and so on: two at a time, in order."""
    LAYOUT: gl.constexpr = gl.BlockedLayout([1, 4], [128 // HEAD_DIM, HEAD_DIM // 4], [4, 1], [1, 0])
    query, head, packed = _members(first_query, queries, kv_head, PART, GROUPS, GROUP, LAYOUT)
    row = PART * ROWS + gl.arange(0, ROWS, gl.SliceLayout(1, LAYOUT))
    total = gl.zeros([ROWS, HEAD_DIM], gl.float32, LAYOUT)
    peak = gl.full([ROWS], -1e38, gl.float32, gl.SliceLayout(1, LAYOUT))
    mass = gl.zeros_like(peak)
    for part in range(0, parts, 2):
        at = (first + part * KV_HEADS) * (GROUPS * ROWS) + row
        lse, values = _read_part(partial_ptr, lse_ptr, at, packed, part < parts, HEAD_DIM, LAYOUT)
        beside, its_values = _read_part(
            partial_ptr, lse_ptr, at + KV_HEADS * GROUPS * ROWS, packed, part + 1 < parts, HEAD_DIM, LAYOUT
        )
        new_peak = gl.maximum(peak, gl.maximum(lse, beside))
        decay, weight, its_weight = gl.exp2(peak - new_peak), gl.exp2(lse - new_peak), gl.exp2(beside - new_peak)
        total = total * decay[:, None] + values * weight[:, None] + its_values * its_weight[:, None]
        mass = mass * decay + weight + its_weight
        peak = new_peak
    total = total * (1 / gl.where(mass > 0, mass, 1.0))[:, None]
    to = (query * stride + head * HEAD_DIM)[:, None] + gl.arange(0, HEAD_DIM, gl.SliceLayout(0, LAYOUT))[None, :]
    gl.store(out_ptr + to, total.to(out_ptr.dtype.element_ty), packed[:, None])


@gluon.jit
def _finish(
    memory, tile, acc, peak, mass, work,
    PART: gl.constexpr, GROUPS: gl.constexpr, KV_HEADS: gl.constexpr, GROUP: gl.constexpr, O_LAYOUT: gl.constexpr, IO: gl.constexpr,
):  # fmt: skip
    """Write a group's results; those of a part of the keys to its slot, and if it is the last, all of them merged."""
    _, out_ptr, partial_ptr, lse_ptr, arrivals_ptr, _ = memory
    first_query, queries, _, kv_head, _, _, _, parts, first_program = work
    HEAD_DIM: gl.constexpr = acc.shape[1]
    OUT_STRIDE: gl.constexpr = KV_HEADS * GROUP * HEAD_DIM
    if parts > 1:
        _leave(partial_ptr, lse_ptr, acc, peak, mass, first_query, queries, kv_head, PART, GROUPS, GROUP, O_LAYOUT)
        tl.debug_barrier()
        arrivals_ptr += first_program * GROUPS + PART
        if gl.atomic_add(arrivals_ptr, 1, sem="acq_rel") == parts - 1:
            gl.store(arrivals_ptr, 0)
            _merge(
                out_ptr, partial_ptr, lse_ptr, OUT_STRIDE, first_query, queries, kv_head, first_program, parts,
                PART, GROUPS, GROUP, KV_HEADS, HEAD_DIM,
            )  # fmt: skip
    else:
        tile.store(acc.to(tile.dtype))
        tl.debug_barrier()
        _put(tile, out_ptr, OUT_STRIDE, first_query, queries, kv_head, PART, GROUPS, GROUP, IO)


@gluon.jit
def _attend(
    memory, buffers, barriers, work, scale,
    PART: gl.constexpr, KV_HEADS: gl.constexpr, GROUP: gl.constexpr,
):  # fmt: skip
    """A multiplying group: its 64 rows."""
    q_ptr, _, _, _, _, q_stride = memory
    q_tiles, k_ring, v_ring = buffers
    ready, free = barriers
    first_query, queries, known, kv_head, first_tile, tiles, whole, _, _ = work
    GROUPS: gl.constexpr = q_tiles.shape[0]
    HEAD_DIM: gl.constexpr = q_tiles.shape[2]
    STAGES: gl.constexpr = k_ring.shape[0]
    TILE: gl.constexpr = k_ring.shape[1]
    S_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE, 16])
    O_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HEAD_DIM, 16])
    IO: gl.constexpr = gl.BlockedLayout([1, 8], [256 // HEAD_DIM, HEAD_DIM // 8], [4, 1], [1, 0])
    q_tile = q_tiles.index(PART)
    _take(q_tile, q_ptr, q_stride, first_query, queries, kv_head, PART, GROUPS, GROUP, IO)
    start = (first_tile + tiles - 1) * TILE
    query, _, _ = _members(first_query, queries, kv_head, PART, GROUPS, GROUP, S_LAYOUT)
    position = known + gl.minimum(query, queries - 1)
    peak = gl.full([ROWS], -float("inf"), gl.float32, gl.SliceLayout(1, S_LAYOUT))
    mbarrier.wait(ready.index(0), 0)
    scores = warpgroup_mma_wait(0, (_score(q_tile, k_ring, 0, S_LAYOUT),))
    _release(free, 0)
    weights, _, peak, mass = _masked_softmax(scores, peak, scale, position, start, S_LAYOUT)
    if start + TILE > known + queries:  # weight 0 would not undo a NaN behind the row's end
        mbarrier.wait(ready.index(1), 0)
        _blank(v_ring.index(1), start + gl.arange(0, TILE, gl.SliceLayout(1, IO)) < known + queries)

    acc = gl.zeros([ROWS, HEAD_DIM], gl.float32, O_LAYOUT)
    for step in range(1, tiles - whole):  # the diagonal may touch more than one tile
        stage = step % STAGES
        mbarrier.wait(ready.index(stage), step // STAGES & 1)
        acc = warpgroup_mma_wait(0, (_add_values(acc, weights, v_ring, stage, O_LAYOUT),))
        scores = warpgroup_mma_wait(0, (_score(q_tile, k_ring, stage, S_LAYOUT),))
        _release(free, stage)
        weights, decay, peak, more = _masked_softmax(scores, peak, scale, position, start - step * TILE, S_LAYOUT)
        mass = _decayed(mass, decay) + more
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
    mass = gl.convert_layout(gl.sum(mass, 1), gl.SliceLayout(1, S_LAYOUT))
    acc = _rescale(acc, 1 / gl.where(mass > 0, mass, 1.0), O_LAYOUT)
    _finish(memory, q_tile, acc, peak, mass, work, PART, GROUPS, KV_HEADS, GROUP, O_LAYOUT, IO)


@gluon.jit(do_not_specialize=["page_rows", "table_stride"], do_not_specialize_on_alignment=["table_ptr", "tasks_ptr"])
def _prefill_hopper_kernel(
    q_ptr, kv_desc, table_ptr, tasks_ptr, arrivals_ptr, out_ptr, partial_ptr, lse_ptr, q_stride, page_rows, table_stride, scale,
    KV_HEADS: gl.constexpr, GROUP: gl.constexpr, HEAD_DIM: gl.constexpr, GROUPS: gl.constexpr, TILE: gl.constexpr,
    STAGES: gl.constexpr, FIELDS: gl.constexpr,
):  # fmt: skip
    task = tasks_ptr + gl.program_id(0) * FIELDS
    tiles = gl.load(task + 7)
    if tiles == 0:
        return
    row, kv_head, begin, queries, length = gl.load(task), gl.load(task + 1), gl.load(task + 2), gl.load(task + 3), gl.load(task + 4)
    first_query, first_tile, parts, first_program = gl.load(task + 5), gl.load(task + 6), gl.load(task + 8), gl.load(task + 9)
    known = length - queries  # tokens that the cache held before this chunk
    # Tiles that every query sees in full; the first loaded, the last of the row's, never counts.
    whole = gl.maximum(gl.minimum((known + first_query + 1) // TILE - first_tile, tiles - 1), 0)
    q_ptr += begin.to(gl.int64) * q_stride
    out_ptr += begin.to(gl.int64) * (KV_HEADS * GROUP * HEAD_DIM)
    table_ptr += row.to(gl.int64) * table_stride + first_tile * (TILE // PAGE)
    last_page = (length - 1) // PAGE - first_tile * (TILE // PAGE)

    q_tiles = gl.allocate_shared_memory(kv_desc.dtype, [GROUPS, ROWS, HEAD_DIM], kv_desc.layout)
    k_ring = gl.allocate_shared_memory(kv_desc.dtype, [STAGES, TILE, HEAD_DIM], kv_desc.layout)
    v_ring = gl.allocate_shared_memory(kv_desc.dtype, [STAGES, TILE, HEAD_DIM], kv_desc.layout)
    ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(ready.index(stage), 1)
        mbarrier.init(free.index(stage), GROUPS)
    fence_async_shared()
    FIRST: gl.constexpr = 0
    SECOND: gl.constexpr = 1
    memory = (q_ptr, out_ptr, partial_ptr, lse_ptr, arrivals_ptr, q_stride)
    buffers = (q_tiles, k_ring, v_ring)
    barriers = (ready, free)
    work = (first_query, queries, known, kv_head, first_tile, tiles, whole, parts, first_program)
    loading = (
        kv_desc, table_ptr, k_ring, v_ring, ready, free, kv_head * PAGE, (KV_HEADS + kv_head) * PAGE, page_rows, tiles, last_page,
    )  # fmt: skip
    if GROUPS == 1:
        gl.warp_specialize(
            [(_attend, (memory, buffers, barriers, work, scale, FIRST, KV_HEADS, GROUP)), (_load, loading)], [1], [24]
        )
    else:
        gl.warp_specialize(
            [
                (_attend, (memory, buffers, barriers, work, scale, FIRST, KV_HEADS, GROUP)),
                (_attend, (memory, buffers, barriers, work, scale, SECOND, KV_HEADS, GROUP)),
                (_load, loading),
            ],
            [4, 1],
            [240, 24],
        )


def fits_hopper(q: torch.Tensor, kv: torch.Tensor) -> bool:
    """Whether ``prefill_on_hopper`` takes these: 16 bits, heads 64 or 128 wide, pages of 64 whose layers are runs of memory.

    And no more queries than offsets of 32 bits tell apart: wider ones would cost the kernel registers that it does not have.
    """
    _, _, kv_heads, page_size, head_dim = kv.shape
    packed = kv.stride()[1:] == (kv_heads * page_size * head_dim, page_size * head_dim, head_dim, 1)
    fits = q.dtype in _DTYPES and head_dim in (64, 128) and page_size == PAGE.value and packed and q.shape[0] * q.stride(0) <= 2**31
    return fits and hopper.is_hopper(q.device)


def prefill_on_hopper(
    q: torch.Tensor, kv: torch.Tensor, page_table: torch.Tensor, scale: float, plan: PrefillPlan, out: torch.Tensor
) -> torch.Tensor:
    """``paged_prefill`` into ``out`` of tensors that ``fits_hopper``."""
    _, heads, head_dim = q.shape
    num_pages, _, kv_heads, page_size, _ = kv.shape
    group, page_rows = heads // kv_heads, kv.stride(0) // head_dim
    slots, groups = plan.arrivals.shape
    partial = torch.empty((slots, groups, ROWS.value, head_dim), dtype=torch.float32, device=q.device)
    lse = torch.empty((slots, groups, ROWS.value), dtype=torch.float32, device=q.device)
    layout = gl.NVMMASharedLayout.get_default_for([page_size, head_dim], _DTYPES[kv.dtype])
    pool = [(num_pages - 1) * page_rows + 2 * kv_heads * page_size, head_dim]
    _prefill_hopper_kernel[(plan.tasks.shape[0],)](
        q, TensorDescriptor(kv, pool, [head_dim, 1], [page_size, head_dim], layout), page_table, plan.tasks, plan.arrivals,
        out, partial, lse, q.stride(0), page_rows, page_table.stride(0), scale * _LOG2_E,
        KV_HEADS=kv_heads, GROUP=group, HEAD_DIM=head_dim, GROUPS=groups, TILE=plan.tile, STAGES=2, FIELDS=FIELDS,
        num_warps=4, maxnreg=_SHARED_REGISTERS if groups == 1 else None,
    )  # fmt: skip
    return out
