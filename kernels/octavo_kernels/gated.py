"""Gate and up of thousands of rows with SwiGLU behind them on Hopper (TMA, wgmma, specialised warps), in Gluon. Knows no model.

The library's product leaves gate and up in memory, for another kernel to read: at thousands of rows that is an eighth of the
product's own time. Here a tile takes as many rows of gate as of up, which then lie in the registers of one thread, and only what
SwiGLU makes of them is written, by the copy engine.

One warp loads tiles into a ring of shared memory, each of two groups of four warps multiplies its own rows of x with all rows of
the weight's tile. Programs stay: while one group writes, the other multiplies and the ring fills with the next tile. Tiles go in
bands of x, so that the programs of a moment share what they read.
"""

import torch
import triton
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

STEP = gl.constexpr(64)  # along K: a row of 128 bytes, as wide as a swizzle
LINES = gl.constexpr(64)  # of x a group
ROWS = gl.constexpr(256)  # of the weight: half of gate, half of up
HALF = gl.constexpr(128)
GROUPS = gl.constexpr(2)
STAGES = gl.constexpr(4)
_MULTIPLYING, _LOADING = gl.constexpr(232), gl.constexpr(40)  # registers a thread
_BAND_BYTES = 1 << 24  # of x: what the second-level cache keeps beside the weights that pass
_DTYPES = {torch.bfloat16: gl.bfloat16, torch.float16: gl.float16}


@gluon.jit
def _place(tile, token_tiles, feature_tiles, most):
    """Which lines of x and which features a tile takes, each counted in tiles: ``most`` tiles of x, all features, the next ones."""
    band = tile // (most * feature_tiles)
    height = gl.minimum(token_tiles - band * most, most)
    within = tile - band * (most * feature_tiles)
    return band * most + within % height, within // height


@gluon.jit
def _load(x, weight, rings, span, features):
    """The loading warp: all steps of all tiles of the program, each into a slot that both groups have given back."""
    BYTES: gl.constexpr = (GROUPS * LINES + ROWS) * STEP * 2
    x_ring, ring, ready, free, _ = rings
    token_tiles, feature_tiles, turns, band = span
    tl.extra.cuda.gdc_wait()
    slot = 0
    phase = 0
    for tile in range(gl.program_id(0), token_tiles * feature_tiles, gl.num_programs(0)):
        token, feature = _place(tile, token_tiles, feature_tiles, band)
        for step in range(turns):
            mbarrier.wait(free.index(slot), phase ^ 1)
            mbarrier.expect(ready.index(slot), BYTES)
            here = ring.index(slot)
            tma.async_copy_global_to_shared(weight, [feature * HALF, step * STEP], ready.index(slot), here.slice(0, HALF))
            tma.async_copy_global_to_shared(
                weight, [features + feature * HALF, step * STEP], ready.index(slot), here.slice(HALF, HALF)
            )
            for group in gl.static_range(GROUPS):
                at = [(token * GROUPS + group) * LINES, step * STEP]
                tma.async_copy_global_to_shared(x, at, ready.index(slot), x_ring.index(slot * GROUPS + group))
            slot += 1
            if slot == STAGES:
                slot = 0
                phase ^= 1


@gluon.jit
def _activate(total):
    """silu(gate) * up of [LINES, ROWS], gate in the left half."""
    WRITE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HALF, 16])
    gate, up = gl.split(gl.permute(gl.reshape(total, (LINES, 2, HALF)), (0, 2, 1)))
    gate = gl.convert_layout(gate, WRITE)
    up = gl.convert_layout(up, WRITE)
    return gate / (1 + gl.exp(-gate)) * up


@gluon.jit
def _before(slot, STAGES: gl.constexpr):
    """The slot of the step before. Reckoned, not kept: Triton does not carry a variable that enters the loop as another's copy."""
    return (slot + STAGES - 1) % STAGES


@gluon.jit
def _multiply(rings, span, out, GROUP: gl.constexpr):
    """A multiplying group: its lines of every tile of the program."""
    MMA: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, ROWS, 16])
    x_ring, ring, ready, free, staged = rings
    token_tiles, feature_tiles, turns, band = span
    tl.extra.cuda.gdc_wait()
    slot = 0
    phase = 0
    for tile in range(gl.program_id(0), token_tiles * feature_tiles, gl.num_programs(0)):
        token, feature = _place(tile, token_tiles, feature_tiles, band)
        total = gl.zeros([LINES, ROWS], gl.float32, MMA)
        for step in range(turns):
            mbarrier.wait(ready.index(slot), phase)
            total = warpgroup_mma(x_ring.index(slot * GROUPS + GROUP), ring.index(slot).permute((1, 0)), total, is_async=True)
            total = warpgroup_mma_wait(1, (total,))
            tl.debug_barrier()
            mbarrier.arrive(free.index(_before(slot, STAGES)), pred=step > 0)
            slot += 1
            if slot == STAGES:
                slot = 0
                phase ^= 1
        total = warpgroup_mma_wait(0, (total,))
        tl.debug_barrier()
        mbarrier.arrive(free.index(_before(slot, STAGES)))
        made = _activate(total).to(out.dtype)
        tma.store_wait(0)  # what the tile before has left here
        tl.debug_barrier()
        staged.index(GROUP).store(made)
        fence_async_shared()
        tl.debug_barrier()
        tma.async_copy_shared_to_global(out, [(token * GROUPS + GROUP) * LINES, feature * HALF], staged.index(GROUP))
    tma.store_wait(0)


@gluon.jit(do_not_specialize=["features", "token_tiles", "feature_tiles", "turns", "band"])
def _gated_kernel(x, weight, out, features, token_tiles, feature_tiles, turns, band):
    tl.extra.cuda.gdc_launch_dependents()
    x_ring = gl.allocate_shared_memory(x.dtype, [STAGES * GROUPS, LINES, STEP], x.layout)
    ring = gl.allocate_shared_memory(weight.dtype, [STAGES, ROWS, STEP], weight.layout)
    staged = gl.allocate_shared_memory(out.dtype, [GROUPS, LINES, HALF], out.layout)
    ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for slot in gl.static_range(STAGES):
        mbarrier.init(ready.index(slot), 1)
        mbarrier.init(free.index(slot), GROUPS)
    fence_async_shared()
    FIRST: gl.constexpr = 0
    SECOND: gl.constexpr = 1
    rings = (x_ring, ring, ready, free, staged)
    span = (token_tiles, feature_tiles, turns, band)
    gl.warp_specialize(
        [
            (_multiply, (rings, span, out, FIRST)),
            (_multiply, (rings, span, out, SECOND)),
            (_load, (x, weight, rings, span, features)),
        ],
        [4, 1],
        [_MULTIPLYING, _LOADING],
    )


def takes(weight: torch.Tensor) -> bool:
    """Whether the copy engine can write what SwiGLU makes of the products with ``weight`` [2F, K]: rows start on 16 bytes."""
    return weight.shape[0] % 16 == 0


def gated(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up [T, F] of ``x`` [T, K] and a ``weight`` [2F, K], gate in the first half of its rows.

    16-bit numbers; rows of ``x`` start on 16 bytes. Moves T * (K + F) + 2F * K numbers, the weight's once a band of x.
    """
    (count, width), features = x.shape, weight.shape[0] // 2
    out = torch.empty((count, features), dtype=x.dtype, device=x.device)
    token_tiles, feature_tiles = triton.cdiv(count, GROUPS.value * LINES.value), triton.cdiv(features, HALF.value)
    band = max(1, _BAND_BYTES // (GROUPS.value * LINES.value * width * 2))
    _gated_kernel[(min(hopper.multiprocessors(x.device), token_tiles * feature_tiles),)](
        _boxes(x, LINES.value, STEP.value), _boxes(weight, HALF.value, STEP.value), _boxes(out, LINES.value, HALF.value),
        features, token_tiles, feature_tiles, triton.cdiv(width, STEP.value), band, num_warps=4, launch_pdl=True,
    )  # fmt: skip
    return out


def _boxes(operand: torch.Tensor, rows: int, width: int) -> TensorDescriptor:
    layout = gl.NVMMASharedLayout.get_default_for([rows, width], _DTYPES[operand.dtype])
    return TensorDescriptor.from_tensor(operand, [rows, width], layout)
