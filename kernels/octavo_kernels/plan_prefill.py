"""Which program of ``paged_prefill`` on Hopper takes which queries and keys, planned once a step for all layers. No scheduler.

A unit is a tile of consecutive queries of one row and a KV head. The tiles of keys that a unit sees are cut into as many parts as
fill the device best: one where units are plenty, several where few queries stand behind long contexts. A part is a program. The
grid depends on shapes only, so that a CUDA graph can hold it; lengths, and with them the parts, are read on the device.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from octavo_kernels import hopper

FIELDS = 16  # of a task, of which ten are used
MOST_PARTS = 32
ROWS = 64  # of a group of warps: queries times the heads that share a KV head
_MANY = 1024  # tokens
_BLOCK_P = 32
_FIXED = 4  # what a program costs before and after its keys, in tiles of keys
_MERGE = 2  # parts that are merged in the time of a tile of keys


class PrefillPlan(NamedTuple):
    """``tasks``: int32 [programs, FIELDS]: row, KV head, the row's first query among all, its queries, its tokens, the unit's first
    query in the row, the first tile of keys, how many (none: nothing to do), parts of the unit, the program of its first part (the
    others follow ``num_kv_heads`` apart). ``arrivals``: int32 [programs, groups], how many parts of a unit are done, zero between
    kernels: at the program of the first part, for each group of warps. ``tile``: keys of a step, one or two pages. ``split``:
    whether a unit may have several parts.
    """

    tasks: torch.Tensor
    arrivals: torch.Tensor
    tile: int
    split: bool


@triton.jit(
    do_not_specialize=["rows", "programs", "processors", "most"], do_not_specialize_on_alignment=["cu_query_ptr", "lengths_ptr"]
)
def _plan_prefill_kernel(
    cu_query_ptr, lengths_ptr, tasks_ptr, arrivals_ptr, rows, programs, processors, most,
    KV_HEADS: tl.constexpr, BLOCK_Q: tl.constexpr, TILE: tl.constexpr, FIELDS: tl.constexpr, GROUPS: tl.constexpr,
    MOST: tl.constexpr, FIXED: tl.constexpr, MERGE: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    row = tl.arange(0, BLOCK_R)
    begin = tl.load(cu_query_ptr + row, row < rows, other=0)
    queries = tl.load(cu_query_ptr + row + 1, row < rows, other=0) - begin
    length = tl.load(lengths_ptr + row, row < rows, other=0)
    units = tl.cdiv(queries, BLOCK_Q)  # of each KV head
    tiles = tl.where(units > 0, tl.cdiv(length, TILE), 0)  # what the last queries of a row see
    longest = tl.maximum(tl.max(tiles, 0), 1)
    count = 1 + tl.arange(0, MOST)
    share = tl.cdiv(longest, count)
    taken = tl.sum(tl.cdiv(tiles[None, :], share[:, None]) * units[None, :], 1) * KV_HEADS
    cost = tl.cdiv(taken, processors) * (share + FIXED) + tl.where(count > 1, 1 + count // MERGE, 0)
    possible = (count <= most) & (taken <= programs) & (tl.cdiv(longest, share) == count)
    cost = tl.where(possible, cost, 1 << 20)
    cost = tl.where(count == 1, tl.minimum(cost, 1 << 19), cost)  # one part always is
    best = tl.min(cost * (2 * MOST) + count, 0) % (2 * MOST)
    parts = tl.cdiv(tiles, tl.cdiv(longest, best))
    ends = tl.cumsum(units * parts, 0) * KV_HEADS

    program = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    before = ends[None, :] <= program[:, None]
    home = tl.sum(before.to(tl.int32), 1)
    here = row[None, :] == home[:, None]
    inside = program - tl.max(tl.where(before, ends[None, :], 0), 1)
    home_begin = tl.sum(tl.where(here, begin[None, :], 0), 1)
    home_queries = tl.sum(tl.where(here, queries[None, :], 0), 1)
    home_length = tl.sum(tl.where(here, length[None, :], 0), 1)
    home_units = tl.sum(tl.where(here, units[None, :], 0), 1)
    home_parts = tl.maximum(tl.sum(tl.where(here, parts[None, :], 0), 1), 1)
    # By row, the longest units first, then the parts, then the heads.
    kv_head = inside % KV_HEADS
    part = inside // KV_HEADS % home_parts
    first_query = (home_units - 1 - inside // KV_HEADS // home_parts) * BLOCK_Q
    end = tl.minimum(home_length - home_queries + first_query + BLOCK_Q, home_length)
    seen = tl.cdiv(end, TILE)
    cut = tl.maximum(tl.minimum(home_parts, seen), 1)
    first = part * seen // cut
    take = tl.where((home_units > 0) & (part < cut), (part + 1) * seen // cut - first, 0)

    task = tasks_ptr + program * FIELDS
    known = program < programs
    tl.store(task, home, known)
    tl.store(task + 1, kv_head, known)
    tl.store(task + 2, home_begin, known)
    tl.store(task + 3, home_queries, known)
    tl.store(task + 4, home_length, known)
    tl.store(task + 5, first_query, known)
    tl.store(task + 6, first, known)
    tl.store(task + 7, take, known)
    tl.store(task + 8, cut, known)
    tl.store(task + 9, program - part * KV_HEADS, known)
    for group in tl.static_range(GROUPS):
        tl.store(arrivals_ptr + program * GROUPS + group, 0, known)


def plan_prefill(
    cu_query: torch.Tensor, context_lens: torch.Tensor, tokens: int, num_heads: int, num_kv_heads: int, head_dim: int
) -> Any:
    """Plan the attention of ``tokens`` queries over rows of ``context_lens`` int32 [R] tokens; holds for every layer.

    None where no kernel goes by it. ``cu_query``: int32 [R + 1], see ``paged_prefill``.
    """
    if not hopper.is_hopper(context_lens.device):
        return None
    return plan_units(cu_query, context_lens, tokens, num_heads, num_kv_heads, *_unit(tokens, head_dim))


def _unit(tokens: int, head_dim: int) -> tuple[int, int]:
    """Groups of warps in a program, and keys of a step.

    Narrow heads leave most of a step to the softmax, which hides best behind other programs: three small ones share a
    multiprocessor. Few tokens are parts of prompts with long contexts, where two groups read the keys for each other.
    """
    return (1, 64) if head_dim == 64 and tokens >= _MANY else (2, 128)


def _at_least(rows: int) -> int:
    """A power of four, so that few kernels serve all numbers of rows."""
    return max(16, 4 ** -(-(rows - 1).bit_length() // 2))


def plan_units(
    cu_query: torch.Tensor, context_lens: torch.Tensor, tokens: int, num_heads: int, num_kv_heads: int, groups: int, tile: int
) -> PrefillPlan:
    """``plan_prefill`` on any device, in units of ``groups`` times ``ROWS`` rows and ``tile`` keys."""
    rows, device = context_lens.shape[0], context_lens.device
    block_r = _at_least(rows)
    block_q = groups * ROWS // (num_heads // num_kv_heads)
    processors = hopper.multiprocessors(device)
    slots = tokens // block_q + rows  # a row fills at most one tile only in part
    # All tokens may belong to one row; where even they fill the device twice, no unit is cut.
    split = triton.cdiv(tokens, block_q) * num_kv_heads < 2 * processors
    programs = max(slots * num_kv_heads, 2 * processors) if split else slots * num_kv_heads
    tasks = torch.empty((programs, FIELDS), dtype=torch.int32, device=device)
    arrivals = torch.empty((programs, groups), dtype=torch.int32, device=device)
    _plan_prefill_kernel[(triton.cdiv(programs, _BLOCK_P),)](
        cu_query, context_lens, tasks, arrivals, rows, programs, processors, MOST_PARTS if split else 1,
        KV_HEADS=num_kv_heads, BLOCK_Q=block_q, TILE=tile, FIELDS=FIELDS, GROUPS=groups, MOST=MOST_PARTS,
        FIXED=_FIXED, MERGE=_MERGE, BLOCK_R=block_r, BLOCK_P=_BLOCK_P,
        num_warps=min(32, max(4, block_r // 64)),
    )  # fmt: skip
    return PrefillPlan(tasks, arrivals, tile, split)
