"""Which program of ``paged_decode`` takes which tiles, planned once a step for all its layers, in Triton. Knows no scheduler.

Every (row, KV head) is a unit of as many tiles as its row fills, an empty row's of one. The units' tiles lie end to end, by row,
and every program takes an equal run of them, whatever rows it crosses. The grid depends on shapes only, so that a CUDA graph can
hold it.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from octavo_kernels.hopper import after_predecessor, let_successor_start, multiprocessors, pdl

TILE = 64
FIELDS = 8  # of a task, of which six are used
_BLOCK_P = 32
_BLOCK_R = 1024  # rows that are looked at together
_WHOLE = 3  # tiles of a unit that one program takes sooner than several could merge their parts
_FEW_ROWS = 8


class DecodePlan(NamedTuple):
    """``tasks``: int32 [programs, FIELDS], where a program begins and what it needs to know at once: its first unit
    (row * num_kv_heads + KV head), the first tile in it, how many tiles the program takes, how many a program takes at most, tiles
    and tokens of the unit's row. ``arrivals``: int32 [R * num_kv_heads], how many parts of a unit are done: zero between kernels.
    """

    tasks: torch.Tensor
    arrivals: torch.Tensor


@triton.jit
def _tiles(lengths_ptr, row, rows, TILE: tl.constexpr):
    """Of each row; none of one that is not there."""
    length = tl.load(lengths_ptr + row, row < rows, other=0)
    return tl.where(row < rows, tl.maximum(tl.cdiv(length, TILE), 1), 0)


@triton.jit(do_not_specialize=["rows", "programs"])
def _plan_kernel(
    lengths_ptr, tasks_ptr, arrivals_ptr, rows, programs,
    KV_HEADS: tl.constexpr, TILE: tl.constexpr, WHOLE: tl.constexpr, FIELDS: tl.constexpr, BLOCK_R: tl.constexpr,
    BLOCK_P: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    let_successor_start(PDL)
    after_predecessor(PDL)
    block = tl.arange(0, BLOCK_R)
    total = 0
    longest = 0
    for at in range(0, rows, BLOCK_R):
        tiles = _tiles(lengths_ptr, at + block, rows, TILE)
        total += tl.sum(tiles, 0) * KV_HEADS
        longest = tl.maximum(longest, tl.max(tiles, 0))
    share = tl.maximum(tl.cdiv(total, programs), tl.where(longest <= WHOLE, longest, 1))

    program = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    first = program * share
    home = tl.zeros((BLOCK_P,), tl.int32)
    start = tl.zeros((BLOCK_P,), tl.int32)
    end = 0
    for at in range(0, rows, BLOCK_R):
        tiles = _tiles(lengths_ptr, at + block, rows, TILE)
        ends = end + tl.cumsum(tiles, 0) * KV_HEADS
        before = ends[None, :] <= first[:, None]
        home += tl.sum(before.to(tl.int32), 1)
        start = tl.maximum(start, tl.max(tl.where(before, ends[None, :], 0), 1))
        end += tl.sum(tiles, 0) * KV_HEADS
    home_length = tl.load(lengths_ptr + home, home < rows, other=0)
    home_tiles = tl.maximum(tl.cdiv(home_length, TILE), 1)
    inside = first - start
    task = tasks_ptr + program * FIELDS
    known = program < programs
    tl.store(task, home * KV_HEADS + inside // home_tiles, known)
    tl.store(task + 1, inside % home_tiles, known)
    tl.store(task + 2, tl.maximum(tl.minimum(share, total - first), 0), known)
    tl.store(task + 3, share, known)
    tl.store(task + 4, home_tiles, known)
    tl.store(task + 5, home_length, known)
    for unit in range(tl.program_id(0) * BLOCK_R, rows * KV_HEADS, tl.num_programs(0) * BLOCK_R):
        tl.store(arrivals_ptr + unit + block, 0, unit + block < rows * KV_HEADS)


def plan_decode(context_lens: torch.Tensor, num_kv_heads: int) -> "DecodePlan":
    """Plan ``paged_decode`` over rows of ``context_lens`` int32 [R] tokens; holds for every layer of ``num_kv_heads`` heads."""
    rows, device = context_lens.shape[0], context_lens.device
    # Two programs share a multiprocessor's bandwidth better; with few rows one leaves the next kernel room to start.
    programs = multiprocessors(device) * (1 if rows <= _FEW_ROWS else 2)
    tasks = torch.empty((programs, FIELDS), dtype=torch.int32, device=device)
    arrivals = torch.empty(rows * num_kv_heads, dtype=torch.int32, device=device)
    launch = pdl(device)
    _plan_kernel[(triton.cdiv(programs, _BLOCK_P),)](
        context_lens, tasks, arrivals, rows, programs,
        KV_HEADS=num_kv_heads, TILE=TILE, WHOLE=_WHOLE, FIELDS=FIELDS, BLOCK_R=min(_BLOCK_R, max(16, triton.next_power_of_2(rows))),
        BLOCK_P=_BLOCK_P, PDL=launch.PDL, num_warps=4, **launch.options,
    )  # fmt: skip
    return DecodePlan(tasks, arrivals)
