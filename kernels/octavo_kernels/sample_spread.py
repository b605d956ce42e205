"""The third step of sampling, in Triton: another pass, by many programs, over rows that are not settled. Knows bounds, no edge."""

import triton
import triton.language as tl

from octavo_kernels.hopper import after_predecessor, let_successor_start
from octavo_kernels.sample_noise import exp, winner_of_block
from octavo_kernels.sample_settle import SPREAD, distances


@triton.jit
def weight_of(behind, by_mass):
    """What a token counts for towards the edge."""
    return tl.where(by_mass, exp(-behind), 1.0)


@triton.jit(do_not_specialize=["blocks"])
def spread_kernel(
    logits_ptr, temperature_ptr, top_k_ptr, min_p_ptr, seeds_ptr, index_ptr, positions_ptr,
    winner_ptr, found_ptr, state_ptr, weight_ptr, logits_stride, vocabulary, blocks,
    BLOCK: tl.constexpr, CAPACITY: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """A share of one row: tokens nearer than its lower bound are in for sure and compete at once, block by block; those up to the
    upper bound are collected. What the sure ones and all tokens weigh goes to ``weight_ptr``."""
    let_successor_start(PDL)
    after_predecessor(PDL)
    split, splits, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1).to(tl.int64)
    state_ptr += row * 8
    if tl.load(state_ptr) == SPREAD:
        peak = tl.load(state_ptr + 1).to(tl.float32, bitcast=True)
        low, high = tl.load(state_ptr + 3), tl.load(state_ptr + 4)
        by_mass, min_p = tl.load(top_k_ptr + row) <= 0, tl.load(min_p_ptr + row)
        seed, position, index = tl.load(seeds_ptr + row), tl.load(positions_ptr + row), tl.load(index_ptr + row)
        inverse = tl.div_rn(1.0, tl.load(temperature_ptr + row))
        sure_weight, weight = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
        for block in range(split, blocks, splits):
            token = block * BLOCK + tl.arange(0, BLOCK)
            behind, left = distances(logits_ptr + row * logits_stride, token, token < vocabulary, peak, inverse, min_p)
            bits = behind.to(tl.int32, bitcast=True)
            sure = left & (bits <= low)
            own = tl.where(left, weight_of(behind, by_mass), 0.0)
            weight += own
            sure_weight += tl.where(sure, own, 0.0)
            maybe = left & (bits > low) & (bits <= high)
            number = tl.sum(maybe.to(tl.int32), 0)
            if number > 0:
                slot = tl.atomic_add(state_ptr + 2, number, sem="relaxed") + tl.cumsum(maybe.to(tl.int32), 0) - 1
                tl.store(found_ptr + row * CAPACITY + slot, token, maybe & (slot < CAPACITY))
            behind = tl.where(sure, behind, float("inf"))
            winner = winner_of_block(behind, block * BLOCK, seed, position, index, BLOCK)
            tl.store(winner_ptr + row * blocks + block, winner)
        weight_ptr += row * 2 * splits + split
        tl.store(weight_ptr, tl.sum(sure_weight, 0))
        tl.store(weight_ptr + splits, tl.sum(weight, 0))
