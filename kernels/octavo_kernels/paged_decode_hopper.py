"""``paged_decode`` for Hopper, in Gluon: one warp brings tiles by TMA, four multiply them. Knows no scheduler.

The tokens of a tile are the rows of both products, scores = K q^T and out^T = V^T weights, so that the few heads of a group, padded
to eight, are the columns: hardly any arithmetic is padding, and keys and values go from shared memory straight to the matrix units.
The bringing warp runs ahead over the ends of rows: the memory never waits for a row to be finished.
"""

import torch
import triton
import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma, warpgroup_mma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from octavo_kernels import hopper
from octavo_kernels.plan_decode import FIELDS, TILE, DecodePlan

_STAGES = 3
_PARTS = 16  # read at a time where they are merged
_ELEMENTS = {torch.bfloat16: gl.bfloat16, torch.float16: gl.float16}
_QUEUE = gl.constexpr(2)  # units whose queries are there or on their way


@gluon.jit
def _first_task(tasks_ptr, FIELDS: gl.constexpr):
    """The program's first unit, first tile, tiles to take, the share of every program, and tiles and tokens of the unit's row."""
    task = tasks_ptr + gl.program_id(0) * FIELDS
    return gl.load(task), gl.load(task + 1), gl.load(task + 2), gl.load(task + 3), gl.load(task + 4), gl.load(task + 5)


@gluon.jit
def _row_of(unit, left, tiles, length, lengths_ptr, KV_HEADS: gl.constexpr, TILE: gl.constexpr):
    """Tiles and tokens of the row of ``unit``, given those of the unit before it."""
    if (left > 0) & (unit % KV_HEADS == 0):
        length = gl.load(lengths_ptr + unit // KV_HEADS)
        tiles = gl.maximum(gl.cdiv(length, TILE), 1)
    return tiles, length


@gluon.jit
def _bring(
    q_desc, kv_desc, table_ptr, lengths_ptr, tasks_ptr, buffers, barriers,
    q_rows, page_rows, side_rows, head_rows, table_stride,
    KV_HEADS: gl.constexpr, GROUP: gl.constexpr, PAGE: gl.constexpr, TILE: gl.constexpr, STEP: gl.constexpr,
    STAGES: gl.constexpr, FIELDS: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    queries, keys, values, _ = buffers
    queries_ready, queries_free, keys_ready, values_ready, stage_free = barriers
    if PDL:
        tl.extra.cuda.gdc_wait()
    unit, tile, left, _, tiles, length = _first_task(tasks_ptr, FIELDS)
    units = 0
    steps = 0
    while left > 0:
        row = unit // KV_HEADS
        kv_head = unit % KV_HEADS
        slot = units % _QUEUE
        mbarrier.wait(queries_free.index(slot), ((units // _QUEUE) & 1) ^ 1)
        mbarrier.expect(queries_ready.index(slot), q_desc.block_type.nbytes)
        tma.async_copy_global_to_shared(q_desc, [row * q_rows + kv_head * GROUP, 0], queries_ready.index(slot), queries.index(slot))
        pages = table_ptr + row.to(gl.int64) * table_stride
        last = gl.minimum(tile + left, gl.cdiv(length, TILE))
        for at in range(tile, last, STEP // TILE):
            stage = steps % STAGES
            mbarrier.wait(stage_free.index(stage), ((steps // STAGES) & 1) ^ 1)
            mbarrier.expect(keys_ready.index(stage), kv_desc.block_type.nbytes * (STEP // TILE))
            mbarrier.expect(values_ready.index(stage), kv_desc.block_type.nbytes * (STEP // TILE))
            for box in gl.static_range(STEP // TILE):
                token = gl.minimum(at + box, last - 1) * TILE  # behind the end the last tile once more, from the L2 cache
                from_row = gl.load(pages + token // PAGE) * page_rows + kv_head * head_rows + token % PAGE
                to_keys = keys.index(stage).slice(box * TILE, TILE)
                to_values = values.index(stage).slice(box * TILE, TILE)
                tma.async_copy_global_to_shared(kv_desc, [from_row, 0], keys_ready.index(stage), to_keys)
                tma.async_copy_global_to_shared(kv_desc, [from_row + side_rows, 0], values_ready.index(stage), to_values)
            steps += 1
        left -= gl.minimum(left, tiles - tile)
        tile = 0
        unit += 1
        units += 1
        tiles, length = _row_of(unit, left, tiles, length, lengths_ptr, KV_HEADS, TILE)


@gluon.jit
def _merge(
    out_ptr, partial_ptr, lse_ptr, unit, first, parts, shift,
    GROUP: gl.constexpr, BLOCK_G: gl.constexpr, HEAD_DIM: gl.constexpr, PARTS: gl.constexpr,
):  # fmt: skip
    """Write a unit whose ``parts`` lie in the slots from ``first`` on, the first of them ``shift`` slots further."""
    LANES: gl.constexpr = HEAD_DIM // 4 if HEAD_DIM < 128 else 32
    layout: gl.constexpr = gl.BlockedLayout([1, 1, 4], [1, 32 // LANES, LANES], [1, 4, 1], [2, 1, 0])
    by_head: gl.constexpr = gl.SliceLayout(2, layout)
    merged: gl.constexpr = gl.SliceLayout(0, layout)
    member = gl.arange(0, BLOCK_G, gl.SliceLayout(0, by_head))[None, :]
    dim = gl.arange(0, HEAD_DIM, gl.SliceLayout(0, merged))[None, :]
    total = gl.zeros([BLOCK_G, HEAD_DIM], gl.float32, merged)
    peak = gl.full([BLOCK_G], -1e38, gl.float32, gl.SliceLayout(0, by_head))
    mass = gl.zeros([BLOCK_G], gl.float32, gl.SliceLayout(0, by_head))
    for begin in range(0, parts, PARTS):
        part = begin + gl.arange(0, PARTS, gl.SliceLayout(1, by_head))[:, None]
        at = (first + part + gl.where(part == 0, shift, 0)) * GROUP + member
        there = (part < parts) & (member < GROUP)
        lse = gl.load(lse_ptr + at, there, other=-float("inf"), cache_modifier=".cg")
        from_ptr = partial_ptr + at[:, :, None] * HEAD_DIM + dim[None]
        values = gl.load(from_ptr, there[:, :, None], other=0, cache_modifier=".cg")
        new_peak = gl.maximum(peak, gl.max(lse, 0))
        weights = gl.exp2(lse - new_peak[None, :])
        decay = gl.exp2(peak - new_peak)
        total = total * gl.convert_layout(decay, gl.SliceLayout(1, merged))[:, None] + gl.sum(values * weights[:, :, None], 0)
        mass = mass * decay + gl.sum(weights, 0)
        peak = new_peak
    total = total / gl.convert_layout(mass, gl.SliceLayout(1, merged))[:, None]
    row = gl.arange(0, BLOCK_G, gl.SliceLayout(1, merged))[:, None]
    to_ptr = out_ptr + (unit.to(gl.int64) * GROUP + row) * HEAD_DIM + dim
    gl.store(to_ptr, total.to(out_ptr.dtype.element_ty), (row < GROUP) & (dim < HEAD_DIM))


@gluon.jit
def _step(
    start, end, stage, phase, queries, acc, peak, masses, scale, buffers, barriers,
    BLOCK_G: gl.constexpr, HEAD_DIM: gl.constexpr, STEP: gl.constexpr, product: gl.constexpr,
):  # fmt: skip
    """One step of the online softmax (base 2) over the tokens of a stage that are below ``end``."""
    _, keys, values, weights = buffers
    _, _, keys_ready, values_ready, stage_free = barriers
    inside = start + gl.arange(0, STEP, gl.SliceLayout(1, product)) < end
    mbarrier.wait(keys_ready.index(stage), phase)
    zero = gl.zeros([STEP, BLOCK_G], gl.float32, product)
    scores = warpgroup_mma(keys.index(stage), queries.permute((1, 0)), zero, use_acc=False) * scale
    if start + STEP > end:
        scores = gl.where(inside[:, None], scores, -float("inf"))
    new_peak = gl.maximum(peak, gl.max(scores, 0))
    shares = gl.exp2(scores - new_peak[None, :])
    decay = gl.exp2(peak - new_peak)[None, :]
    weights.permute((1, 0)).store(shares.to(weights.dtype))
    mbarrier.wait(values_ready.index(stage), phase)
    if start + STEP > end:  # what lies behind the end may be NaN, and 0 * NaN is NaN
        lanes: gl.constexpr = HEAD_DIM // 8
        rows: gl.constexpr = gl.BlockedLayout([1, 8], [32 // lanes, lanes], [4, 1], [1, 0])
        real = start + gl.arange(0, STEP, gl.SliceLayout(1, rows)) < end
        values.index(stage).store(gl.where(real[:, None], values.index(stage).load(rows), 0.0))
    fence_async_shared()
    acc = warpgroup_mma(values.index(stage).permute((1, 0)), weights.permute((1, 0)), acc * decay)
    mbarrier.arrive(stage_free.index(stage), count=1)
    return acc, new_peak, masses * decay + shares


@gluon.jit
def _attend(
    lengths_ptr, tasks_ptr, arrivals_ptr, out_ptr, partial_ptr, lse_ptr, buffers, barriers, programs, scale,
    KV_HEADS: gl.constexpr, GROUP: gl.constexpr, BLOCK_G: gl.constexpr, COLUMNS: gl.constexpr, HEAD_DIM: gl.constexpr,
    TILE: gl.constexpr, STEP: gl.constexpr, STAGES: gl.constexpr, FIELDS: gl.constexpr, PARTS: gl.constexpr, PDL: gl.constexpr,
):  # fmt: skip
    queries_ready, queries_free, _, _, _ = barriers
    product: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, COLUMNS, 16])
    member = gl.arange(0, COLUMNS, gl.SliceLayout(0, product))
    dim = gl.arange(0, HEAD_DIM, gl.SliceLayout(1, product))
    packed = (member < GROUP)[None, :] & (dim < HEAD_DIM)[:, None]
    if PDL:
        tl.extra.cuda.gdc_wait()
    unit, tile, left, share, tiles, length = _first_task(tasks_ptr, FIELDS)
    position = gl.program_id(0) * share
    part = gl.program_id(0)
    units = 0
    steps = 0
    while left > 0:
        take = gl.minimum(left, tiles - tile)
        end = gl.minimum(length, (tile + take) * TILE)
        slot = units % _QUEUE
        queries = buffers[0].index(slot)
        mbarrier.wait(queries_ready.index(slot), (units // _QUEUE) & 1)
        acc = gl.zeros([HEAD_DIM, COLUMNS], gl.float32, product)
        peak = gl.full([COLUMNS], -float("inf"), gl.float32, gl.SliceLayout(0, product))
        masses = gl.zeros([STEP, COLUMNS], gl.float32, product)
        for start in range(tile * TILE, end, STEP):
            acc, peak, masses = _step(
                start, end, steps % STAGES, (steps // STAGES) & 1, queries, acc, peak, masses, scale, buffers, barriers,
                COLUMNS, HEAD_DIM, STEP, product,
            )  # fmt: skip
            steps += 1
        mbarrier.arrive(queries_free.index(slot), count=1)
        mass = gl.sum(masses, 0)
        acc = acc * (1.0 / gl.where(mass > 0, mass, 1.0))[None, :]
        if take == tiles:
            to_ptr = out_ptr + (unit.to(gl.int64) * GROUP + member)[None, :] * HEAD_DIM + dim[:, None]
            gl.store(to_ptr, acc.to(out_ptr.dtype.element_ty), packed)
        else:
            gl.store(partial_ptr + (part * GROUP + member)[None, :] * HEAD_DIM + dim[:, None], acc, packed)
            gl.store(lse_ptr + part * GROUP + member, peak + gl.log2(mass), member < GROUP)
            begin = position - tile
            first = begin // share
            parts = (begin + tiles - 1) // share - first + 1
            tl.debug_barrier()
            if gl.atomic_add(arrivals_ptr + unit, 1, sem="acq_rel") == parts - 1:
                gl.store(arrivals_ptr + unit, 0)
                shift = gl.where(begin % share > 0, programs, 0)
                _merge(out_ptr, partial_ptr, lse_ptr, unit, first, parts, shift, GROUP, BLOCK_G, HEAD_DIM, PARTS)
        left -= take
        position += take
        tile = 0
        unit += 1
        units += 1
        part = gl.program_id(0) + programs  # what a program ends with without finishing it lies behind all that is begun
        tiles, length = _row_of(unit, left, tiles, length, lengths_ptr, KV_HEADS, TILE)


@gluon.jit(do_not_specialize=["q_rows", "page_rows", "side_rows", "head_rows", "table_stride", "programs"])
def _decode_hopper_kernel(
    q_desc, kv_desc, table_ptr, lengths_ptr, tasks_ptr, arrivals_ptr, out_ptr, partial_ptr, lse_ptr,
    q_rows, page_rows, side_rows, head_rows, table_stride, programs, scale,
    KV_HEADS: gl.constexpr, GROUP: gl.constexpr, BLOCK_G: gl.constexpr, COLUMNS: gl.constexpr, HEAD_DIM: gl.constexpr,
    PAGE: gl.constexpr, TILE: gl.constexpr, STEP: gl.constexpr, STAGES: gl.constexpr, FIELDS: gl.constexpr, PARTS: gl.constexpr,
    PDL: gl.constexpr,
):  # fmt: skip
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
    element: gl.constexpr = kv_desc.dtype
    weights_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([COLUMNS, STEP], element)
    queries = gl.allocate_shared_memory(element, [_QUEUE, COLUMNS, HEAD_DIM], q_desc.layout)
    keys = gl.allocate_shared_memory(element, [STAGES, STEP, HEAD_DIM], kv_desc.layout)
    values = gl.allocate_shared_memory(element, [STAGES, STEP, HEAD_DIM], kv_desc.layout)
    weights = gl.allocate_shared_memory(element, [COLUMNS, STEP], weights_layout)
    queries_ready = gl.allocate_shared_memory(gl.int64, [_QUEUE, 1], mbarrier.MBarrierLayout())
    queries_free = gl.allocate_shared_memory(gl.int64, [_QUEUE, 1], mbarrier.MBarrierLayout())
    keys_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    values_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    stage_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for slot in gl.static_range(_QUEUE):
        mbarrier.init(queries_ready.index(slot), count=1)
        mbarrier.init(queries_free.index(slot), count=1)
    for stage in gl.static_range(STAGES):
        mbarrier.init(keys_ready.index(stage), count=1)
        mbarrier.init(values_ready.index(stage), count=1)
        mbarrier.init(stage_free.index(stage), count=1)
    fence_async_shared()
    buffers = (queries, keys, values, weights)
    barriers = (queries_ready, queries_free, keys_ready, values_ready, stage_free)
    gl.warp_specialize([
        (_attend, (lengths_ptr, tasks_ptr, arrivals_ptr, out_ptr, partial_ptr, lse_ptr, buffers, barriers, programs, scale,
                   KV_HEADS, GROUP, BLOCK_G, COLUMNS, HEAD_DIM, TILE, STEP, STAGES, FIELDS, PARTS, PDL)),
        (_bring, (q_desc, kv_desc, table_ptr, lengths_ptr, tasks_ptr, buffers, barriers,
                  q_rows, page_rows, side_rows, head_rows, table_stride,
                  KV_HEADS, GROUP, PAGE, TILE, STEP, STAGES, FIELDS, PDL)),
    ], [1], [24])  # fmt: skip


def fits_hopper(q: torch.Tensor, kv: torch.Tensor) -> bool:
    """Whether ``decode_on_hopper`` takes these: 16 bits, whole tiles a page, such heads, small groups, on a Hopper."""
    head_dim, page_size = q.shape[2], kv.shape[3]
    known = q.dtype in _ELEMENTS and head_dim in (64, 128, 256) and page_size % TILE == 0 and q.shape[1] <= 16 * kv.shape[2]
    return known and q.stride(0) % head_dim == 0 and hopper.is_hopper(q.device)


def decode_on_hopper(
    q: torch.Tensor, kv: torch.Tensor, page_table: torch.Tensor, context_lens: torch.Tensor, scale: float, plan: DecodePlan,
    out: torch.Tensor, partial: torch.Tensor, lse: torch.Tensor,
) -> None:  # fmt: skip
    """``paged_decode`` into ``out``; ``scale`` is that of base 2, ``partial`` and ``lse`` hold two parts a program."""
    rows, heads, head_dim = q.shape
    num_pages, _, kv_heads, page_size, _ = kv.shape
    group = heads // kv_heads
    block_g = triton.next_power_of_2(group)
    columns = max(8, block_g)
    # Queries, and keys and values, as matrices of heads' or tokens' rows.
    q_rows = q.stride(0) // head_dim
    page_rows, side_rows, head_rows = (stride // head_dim for stride in kv.stride()[:3])
    last_row = (num_pages - 1) * page_rows + side_rows + (kv_heads - 1) * head_rows + page_size
    element = _ELEMENTS[q.dtype]
    q_box, kv_box = [columns, head_dim], [TILE, head_dim]
    q_layout, kv_layout = (gl.NVMMASharedLayout.get_default_for(box, element) for box in (q_box, kv_box))
    launch = hopper.pdl(q.device)
    _decode_hopper_kernel[(plan.tasks.shape[0],)](
        TensorDescriptor(q, [(rows - 1) * q_rows + heads, head_dim], [head_dim, 1], q_box, q_layout),
        TensorDescriptor(kv, [last_row, head_dim], [head_dim, 1], kv_box, kv_layout),
        page_table, context_lens, plan.tasks, plan.arrivals, out, partial, lse,
        q_rows, page_rows, side_rows, head_rows, page_table.stride(0), plan.tasks.shape[0], scale,
        KV_HEADS=kv_heads, GROUP=group, BLOCK_G=block_g, COLUMNS=columns, HEAD_DIM=head_dim, PAGE=page_size, TILE=TILE,
        STEP=2 * TILE if head_dim == 64 else TILE, STAGES=_STAGES, FIELDS=FIELDS,
        PARTS=max(1, min(_PARTS, 8192 // (block_g * head_dim))), PDL=launch.PDL, num_warps=4, maxnreg=128, **launch.options,
    )  # fmt: skip
