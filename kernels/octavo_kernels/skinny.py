"""A few rows times a weight matrix on Hopper's tensor cores, in Gluon: the weight is the tall operand. Knows no model.

Memory-bound: reads N * K numbers of weight once, and the rows of x once a tile of weight. The copy engine fills a ring of tiles, as
deep as shared memory; its weights are under way before the predecessor has ended.

Every program should have a share of the whole weight, and ending alone is cheaper than adding up what several programs hold. So a
tile may have fewer rows than a warpgroup multiplies: then several tiles beside one another along K (folds) are stacked to one tall
operand, their parts of x to one wide one, and only the blocks on the diagonal of the product count. Where that does not suffice,
programs split a tile along K: each leaves its part in a workspace, and the last to arrive adds them up in their order, so that the
result does not depend on who that is.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma, warpgroup_mma_wait
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

_DTYPES = {torch.bfloat16: gl.bfloat16, torch.float16: gl.float16}
_MAX_TILES = 4096  # that programs share


class Tiling(NamedTuple):
    """``rows`` x ``width`` of weight a tile, ``folds`` tiles a turn, ``splits`` programs a tile, ``stages`` turns under way.

    ``warps`` a program, four for each 64 or 128 of ``rows * folds``.
    """

    rows: int
    width: int
    folds: int
    splits: int
    stages: int
    warps: int = 4


@gluon.jit
def _fetch(operand, ring, ready, slot, first, step, turn, inside, PIECES: gl.constexpr, FOLDS: gl.constexpr):
    """Ask for a turn's tiles: of each fold PIECES boxes, ``step`` rows apart, one below the other in shared memory."""
    HEIGHT: gl.constexpr = operand.block_shape[0]
    WIDTH: gl.constexpr = operand.block_shape[1]
    for fold in gl.static_range(FOLDS):
        for piece in gl.static_range(PIECES):
            to = ring.index(slot).slice((fold * PIECES + piece) * HEIGHT, HEIGHT)
            at = [first + piece * step, (turn * FOLDS + fold) * WIDTH]
            tma.async_copy_global_to_shared(operand, at, ready.index(slot), to, pred=inside)


@gluon.jit
def _product(x, weight, first, step, start, stop, ROWS: gl.constexpr, WIDTH: gl.constexpr, BATCH: gl.constexpr,
             FOLDS: gl.constexpr, STAGES: gl.constexpr, PIECES: gl.constexpr, WARPS: gl.constexpr):  # fmt: skip
    """Turns ``start`` to ``stop`` of a tile: [ROWS, BATCH] in float32."""
    HEIGHT: gl.constexpr = ROWS * FOLDS
    LINES: gl.constexpr = BATCH * FOLDS
    BYTES: gl.constexpr = (HEIGHT + LINES) * WIDTH * 2
    MMA: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [WARPS, 1], [16, LINES, 16])
    ring = gl.allocate_shared_memory(weight.dtype, [STAGES, HEIGHT, WIDTH], weight.layout)
    x_ring = gl.allocate_shared_memory(x.dtype, [STAGES, LINES, WIDTH], x.layout)
    ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for slot in gl.static_range(STAGES):
        mbarrier.init(ready.index(slot), count=1)
    for slot in gl.static_range(STAGES):
        mbarrier.expect(ready.index(slot), BYTES, pred=start + slot < stop)
        _fetch(weight, ring, ready, slot, first, step, start + slot, start + slot < stop, PIECES, FOLDS)
    tl.extra.cuda.gdc_wait()
    for slot in gl.static_range(STAGES):
        _fetch(x, x_ring, ready, slot, 0, 0, start + slot, start + slot < stop, 1, FOLDS)

    total = gl.zeros([HEIGHT, LINES], gl.float32, MMA)
    slot = 0
    phase = 0
    for turn in range(start, stop):
        mbarrier.wait(ready.index(slot), phase)
        total = warpgroup_mma(ring.index(slot), x_ring.index(slot).permute((1, 0)), total, is_async=True)
        total = warpgroup_mma_wait(0, deps=(total,))
        tl.debug_barrier()
        inside = turn + STAGES < stop
        mbarrier.expect(ready.index(slot), BYTES, pred=inside)
        _fetch(weight, ring, ready, slot, first, step, turn + STAGES, inside, PIECES, FOLDS)
        _fetch(x, x_ring, ready, slot, 0, 0, turn + STAGES, inside, 1, FOLDS)
        slot += 1
        if slot == STAGES:
            slot = 0
            phase ^= 1

    if FOLDS > 1:
        fold = gl.arange(0, HEIGHT, layout=gl.SliceLayout(1, MMA))[:, None] // ROWS
        fold_of_x = gl.arange(0, LINES, layout=gl.SliceLayout(0, MMA))[None, :] // BATCH
        total = gl.where(fold == fold_of_x, total, 0.0)
        total = gl.sum(gl.reshape(total, (HEIGHT, FOLDS, BATCH)), 1)
        total = gl.sum(gl.reshape(total, (FOLDS, ROWS, BATCH)), 0)
    return total


@gluon.jit
def _finish(total, tile, bias_ptr, residual_ptr, out_ptr, out_stride, count, features,
            ROWS: gl.constexpr, BATCH: gl.constexpr, SWIGLU: gl.constexpr, WARPS: gl.constexpr):  # fmt: skip
    """What follows the product [ROWS, BATCH], and the write of its transpose."""
    WRITE: gl.constexpr = total.type.layout
    HEIGHT: gl.constexpr = ROWS // 2 if SWIGLU else ROWS
    feature = tile * HEIGHT + gl.arange(0, HEIGHT, layout=gl.SliceLayout(1, WRITE))
    line = gl.arange(0, BATCH, layout=gl.SliceLayout(0, WRITE))
    if SWIGLU:
        PAIRS: gl.constexpr = gl.BlockedLayout([4, 1, 2], [8, 4, 1], [1, WARPS, 1], [2, 0, 1])
        pairs = gl.permute(gl.reshape(total, (2, HEIGHT, BATCH)), (1, 2, 0))
        gate, up = gl.split(gl.convert_layout(pairs, PAIRS))
        gate = gl.convert_layout(gate, WRITE)
        up = gl.convert_layout(up, WRITE)
        if bias_ptr is not None:
            gate += gl.load(bias_ptr + feature, feature < features, other=0).to(gl.float32)[:, None]
            up += gl.load(bias_ptr + features + feature, feature < features, other=0).to(gl.float32)[:, None]
        total = gate / (1 + gl.exp(-gate)) * up
    elif bias_ptr is not None:
        total += gl.load(bias_ptr + feature, feature < features, other=0).to(gl.float32)[:, None]
    at = line[None, :].to(gl.int64) * out_stride + feature[:, None]
    inside = (line < count)[None, :] & (feature < features)[:, None]
    if residual_ptr is not None:
        total += gl.load(residual_ptr + at, inside, other=0).to(gl.float32)
    gl.store(out_ptr + at, total.to(out_ptr.dtype.element_ty), inside)


@gluon.jit(do_not_specialize=["count", "turns"])
def _skinny_kernel(
    x, weight, bias_ptr, residual_ptr, out_ptr, parts_ptr, arrived_ptr, out_stride, count, features, turns,
    ROWS: gl.constexpr, WIDTH: gl.constexpr, BATCH: gl.constexpr, FOLDS: gl.constexpr, SPLITS: gl.constexpr,
    STAGES: gl.constexpr, SWIGLU: gl.constexpr, WARPS: gl.constexpr,
):  # fmt: skip
    tl.extra.cuda.gdc_launch_dependents()
    WRITE: gl.constexpr = gl.BlockedLayout([8, 1], [4, 8], [1, WARPS], [0, 1])
    PIECES: gl.constexpr = 2 if SWIGLU else 1
    tile = gl.program_id(0) // SPLITS
    split = gl.program_id(0) % SPLITS
    total = _product(x, weight, tile * (ROWS // PIECES), features, split * turns // SPLITS, (split + 1) * turns // SPLITS,
                     ROWS, WIDTH, BATCH, FOLDS, STAGES, PIECES, WARPS)  # fmt: skip
    total = gl.convert_layout(total, WRITE)
    last = True
    if SPLITS > 1:
        PART: gl.constexpr = ROWS * BATCH
        inner = gl.arange(0, BATCH, layout=gl.SliceLayout(0, WRITE))[None, :] * ROWS
        inner += gl.arange(0, ROWS, layout=gl.SliceLayout(1, WRITE))[:, None]
        gl.store(parts_ptr + gl.program_id(0) * PART + inner, total)
        tl.debug_barrier()
        last = gl.atomic_add(arrived_ptr + tile, 1, sem="acq_rel") == SPLITS - 1
        if last:
            gl.store(arrived_ptr + tile, 0)
            parts = parts_ptr + tile * (SPLITS * PART) + inner
            total = gl.load(parts, cache_modifier=".cg")
            for other in gl.static_range(1, SPLITS):
                total += gl.load(parts + other * PART, cache_modifier=".cg")
    if last:
        _finish(total, tile, bias_ptr, residual_ptr, out_ptr, out_stride, count, features, ROWS, BATCH, SWIGLU, WARPS)


@lru_cache
def _arrivals(device: torch.device) -> torch.Tensor:
    """How many programs of each tile are done: zeros between kernels. Made by a call outside any graph, which then finds zeros."""
    return torch.zeros(_MAX_TILES, dtype=torch.int32, device=device)


def batch_of(count: int) -> int:
    """How many rows of x a program multiplies where there are ``count``."""
    return max(8, triton.next_power_of_2(count))


def takes(x: torch.Tensor) -> bool:
    """Whether the copy engine can read ``x`` [T, K]: rows start on 16 bytes."""
    return x.shape[1] % 8 == 0 and x.stride(0) % 8 == 0 and x.data_ptr() % 16 == 0


def skinny(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    swiglu: bool,
    residual: torch.Tensor | None,
    out: torch.Tensor,
    tiling: Tiling,
) -> torch.Tensor:
    """``linear`` of up to 128 rows, normed already: ``x`` [T, K] into ``out`` [T, N] (which may be ``residual``)."""
    (count, width), features = x.shape, out.shape[1]
    rows, step, folds, splits, stages, warps = tiling
    batch = batch_of(count)
    turns = triton.cdiv(width, step * folds)
    splits = min(splits, turns)  # each has a turn
    programs = triton.cdiv(weight.shape[0], rows) * splits
    parts = arrived = None
    if splits > 1:
        parts = torch.empty(programs * rows * batch, dtype=torch.float32, device=x.device)
        arrived = _arrivals(x.device)
    _skinny_kernel[(programs,)](
        _boxes(x, batch, step), _boxes(weight, rows // 2 if swiglu else rows, step),
        bias, residual, out, parts, arrived, out.stride(0), count, features, turns,
        ROWS=rows, WIDTH=step, BATCH=batch, FOLDS=folds, SPLITS=splits, STAGES=stages, SWIGLU=swiglu, WARPS=warps,
        num_warps=warps, launch_pdl=True,
    )  # fmt: skip
    return out


def _boxes(operand: torch.Tensor, rows: int, width: int) -> TensorDescriptor:
    layout = gl.NVMMASharedLayout.get_default_for([rows, width], _DTYPES[operand.dtype])
    return TensorDescriptor.from_tensor(operand, [rows, width], layout)
