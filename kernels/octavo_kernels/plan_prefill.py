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
_MOST_CUT = 4  # programs with a part of a unit, for each multiprocessor: what bounds the memory where parts wait to be merged
ROWS = 64  # of a group of warps: queries times the heads that share a KV head
_MANY = 1024  # tokens
_BLOCK_P = 32
_BLOCK_R = 1024  # rows that are looked at together
_FIXED = 4  # what a program costs before and after its keys, in tiles of keys
_MERGE = 2  # parts that are merged in the time of a tile of keys


class PrefillPlan(NamedTuple):
    """``tasks``: int32 [programs, FIELDS]: row, KV head, the row's first query among all, its queries, its tokens, the unit's first
    query in the row, the first tile of keys, how many (none: nothing to do), parts of the unit, the program of its first part (the
    others follow ``num_kv_heads`` apart). ``arrivals``: int32 [slots, groups], how many parts of a unit are done, zero between
    kernels: at the program of the first part, for each group of warps; only the first ``slots`` programs have a part of a unit.
    ``tile``: keys of a step, one or two pages.
    """

    tasks: torch.Tensor
    arrivals: torch.Tensor
    tile: int


@triton.jit
def _units(cu_query_ptr, lengths_ptr, row, there, BLOCK_Q: tl.constexpr, TILE: tl.constexpr):
    """Of each row: its units of each KV head, and the tiles of keys that the last of them sees."""
    units = tl.cdiv(tl.load(cu_query_ptr + row + 1, there, other=0) - tl.load(cu_query_ptr + row, there, other=0), BLOCK_Q)
    return units, tl.where(units > 0, tl.cdiv(tl.load(lengths_ptr + row, there, other=0), TILE), 0)


@triton.jit
def _most_tiles(
    cu_query_ptr, lengths_ptr, rows, programs, slots, processors,
    KV_HEADS: tl.constexpr, BLOCK_Q: tl.constexpr, TILE: tl.constexpr, MOST: tl.constexpr, FIXED: tl.constexpr,
    MERGE: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """How many tiles of keys a part has at most: the longest row's, cut into the number of parts that is done first.

    And how many programs the units of the rows that are cut so then take.
    """
    block = tl.arange(0, BLOCK_R)
    longest = 1
    for at in range(0, rows, BLOCK_R):
        _, tiles = _units(cu_query_ptr, lengths_ptr, at + block, at + block < rows, BLOCK_Q, TILE)
        longest = tl.maximum(longest, tl.max(tiles, 0))
    count = 1 + tl.arange(0, MOST)
    share = tl.cdiv(longest, count)
    taken = tl.zeros((MOST,), tl.int32)
    cut = tl.zeros((MOST,), tl.int32)
    for at in range(0, rows, BLOCK_R):
        units, tiles = _units(cu_query_ptr, lengths_ptr, at + block, at + block < rows, BLOCK_Q, TILE)
        parts = tl.cdiv(tiles[None, :], share[:, None])
        taken += tl.sum(parts * units[None, :], 1) * KV_HEADS
        cut += tl.sum(tl.where(parts > 1, parts * units[None, :], 0), 1) * KV_HEADS
    cost = tl.cdiv(taken, processors) * (share + FIXED) + tl.where(count > 1, 1 + count // MERGE, 0)
    possible = (taken <= programs) & (cut <= slots) & (tl.cdiv(longest, share) == count)
    cost = tl.where(possible, cost, 1 << 20)
    cost = tl.where(count == 1, tl.minimum(cost, 1 << 19), cost)  # one part always is
    best = tl.min(cost * (2 * MOST) + count, 0) % (2 * MOST)
    return tl.cdiv(longest, best), tl.sum(tl.where(count == best, cut, 0), 0)


@triton.jit(
    do_not_specialize=["rows", "programs", "slots", "processors"], do_not_specialize_on_alignment=["cu_query_ptr", "lengths_ptr"]
)
def _plan_prefill_kernel(
    cu_query_ptr, lengths_ptr, tasks_ptr, arrivals_ptr, rows, programs, slots, processors,
    KV_HEADS: tl.constexpr, BLOCK_Q: tl.constexpr, TILE: tl.constexpr, FIELDS: tl.constexpr, GROUPS: tl.constexpr,
    MOST: tl.constexpr, FIXED: tl.constexpr, MERGE: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    share, rest = _most_tiles(
        cu_query_ptr, lengths_ptr, rows, programs, slots, processors, KV_HEADS, BLOCK_Q, TILE, MOST, FIXED, MERGE, BLOCK_R
    )
    # Rows whose units are cut come first, where their parts have slots; ``rest``: the first program of the others.
    program = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    home = tl.zeros((BLOCK_P,), tl.int32)
    first_program = tl.zeros((BLOCK_P,), tl.int32)  # of the row
    cut_end = 0
    for at in range(0, rows, BLOCK_R):
        row = at + tl.arange(0, BLOCK_R)
        units, tiles = _units(cu_query_ptr, lengths_ptr, row, row < rows, BLOCK_Q, TILE)
        own = units * tl.cdiv(tiles, share) * KV_HEADS
        cut = tl.where(tiles > share, own, 0)
        whole = own - cut
        begins = tl.where(cut > 0, cut_end + tl.cumsum(cut, 0), rest + tl.cumsum(whole, 0)) - own
        here = (begins[None, :] <= program[:, None]) & (program[:, None] < (begins + own)[None, :])
        home += tl.sum(tl.where(here, row[None, :], 0), 1)
        first_program += tl.sum(tl.where(here, begins[None, :], 0), 1)
        cut_end += tl.sum(cut, 0)
        rest += tl.sum(whole, 0)

    there = program < rest
    begin = tl.load(cu_query_ptr + home, there, other=0)
    queries = tl.load(cu_query_ptr + home + 1, there, other=0) - begin
    length = tl.load(lengths_ptr + home, there, other=0)
    inside = program - first_program
    parts = tl.maximum(tl.cdiv(tl.cdiv(length, TILE), share), 1)
    # By row, the longest units first, then the parts, then the heads.
    kv_head = inside % KV_HEADS
    part = inside // KV_HEADS % parts
    first_query = (tl.cdiv(queries, BLOCK_Q) - 1 - inside // KV_HEADS // parts) * BLOCK_Q
    seen = tl.cdiv(tl.minimum(length - queries + first_query + BLOCK_Q, length), TILE)
    seen_parts = tl.maximum(tl.minimum(parts, seen), 1)
    first = part * seen // seen_parts
    take = tl.where(there & (part < seen_parts), (part + 1) * seen // seen_parts - first, 0)

    task = tasks_ptr + program * FIELDS
    known = program < programs
    tl.store(task, home, known)
    tl.store(task + 1, kv_head, known)
    tl.store(task + 2, begin, known)
    tl.store(task + 3, queries, known)
    tl.store(task + 4, length, known)
    tl.store(task + 5, first_query, known)
    tl.store(task + 6, first, known)
    tl.store(task + 7, take, known)
    tl.store(task + 8, seen_parts, known)
    tl.store(task + 9, program - part * KV_HEADS, known)
    for group in tl.static_range(GROUPS):
        tl.store(arrivals_ptr + program * GROUPS + group, 0, program < slots)


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


def _block_of(rows: int) -> int:
    """How many rows are looked at together: a power of four, so that few kernels serve all numbers of rows."""
    return min(_BLOCK_R, max(16, 4 ** -(-(rows - 1).bit_length() // 2)))


def plan_units(
    cu_query: torch.Tensor, context_lens: torch.Tensor, tokens: int, num_heads: int, num_kv_heads: int, groups: int, tile: int
) -> PrefillPlan:
    """``plan_prefill`` on any device, in units of ``groups`` times ``ROWS`` rows and ``tile`` keys."""
    rows, device = context_lens.shape[0], context_lens.device
    block_r = _block_of(rows)
    block_q = groups * ROWS // (num_heads // num_kv_heads)
    processors = hopper.multiprocessors(device)
    programs = (tokens // block_q + rows) * num_kv_heads  # a row fills at most one tile only in part
    slots = 0
    # All tokens may belong to one row; where even they fill the device twice, no unit is cut.
    if triton.cdiv(tokens, block_q) * num_kv_heads < 2 * processors:
        programs = max(programs, 2 * processors)
        slots = min(programs, _MOST_CUT * processors)
    tasks = torch.empty((programs, FIELDS), dtype=torch.int32, device=device)
    arrivals = torch.empty((slots, groups), dtype=torch.int32, device=device)
    _plan_prefill_kernel[(triton.cdiv(programs, _BLOCK_P),)](
        cu_query, context_lens, tasks, arrivals, rows, programs, slots, processors,
        KV_HEADS=num_kv_heads, BLOCK_Q=block_q, TILE=tile, FIELDS=FIELDS, GROUPS=groups, MOST=MOST_PARTS,
        FIXED=_FIXED, MERGE=_MERGE, BLOCK_R=block_r, BLOCK_P=_BLOCK_P, num_warps=max(4, block_r // 64),
    )  # fmt: skip
    return PrefillPlan(tasks, arrivals, tile)
