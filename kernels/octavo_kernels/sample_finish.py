"""The last step of sampling, in Triton: one program a row draws for the rows that took another pass. Knows no batch."""

import triton
import triton.language as tl

from octavo_kernels.hopper import after_predecessor, let_successor_start
from octavo_kernels.sample_noise import NOBODY, best, noise, winner_of_block, winner_of_winners
from octavo_kernels.sample_settle import INFINITY, SETTLED, SPREAD, distances, edge_within
from octavo_kernels.sample_spread import weight_of


@triton.jit
def _weight_of_row(logits_ptr, vocabulary, peak, inverse, min_p, limit, by_mass, BLOCK: tl.constexpr):
    """The weight of a row up to ``limit``."""
    total = tl.zeros((BLOCK,), tl.float32)
    for at in range(0, vocabulary, BLOCK):
        token = at + tl.arange(0, BLOCK)
        behind, left = distances(logits_ptr, token, token < vocabulary, peak, inverse, min_p)
        total += tl.where(left & (behind.to(tl.int32, bitcast=True) <= limit), weight_of(behind, by_mass), 0.0)
    return tl.sum(total, 0)


@triton.jit
def _edge_of_row(logits_ptr, vocabulary, peak, inverse, min_p, limit, target, by_mass, BLOCK: tl.constexpr):
    """The least bits up to which a whole row reaches ``target``, ``limit`` at most."""
    low = tl.full((), -1, tl.int32)
    high = tl.full((), limit, tl.int32)
    while high - low > 1:
        middle = low + (high - low) // 2
        if _weight_of_row(logits_ptr, vocabulary, peak, inverse, min_p, middle, by_mass, BLOCK) >= target:
            high = middle
        else:
            low = middle
    return high


@triton.jit
def _among_all(logits_ptr, winners_ptr, blocks, vocabulary, peak, inverse, top_k, top_p, min_p, seed, position, index,
               BLOCK: tl.constexpr, MAX_BLOCKS: tl.constexpr):  # fmt: skip
    """The token of a row, whatever is in it, in many passes."""
    edge = tl.full((), INFINITY, tl.int32)
    if top_k > 0:
        edge = _edge_of_row(logits_ptr, vocabulary, peak, inverse, min_p, edge, top_k.to(tl.float32), False, BLOCK)
    if top_p < 1:
        target = top_p * _weight_of_row(logits_ptr, vocabulary, peak, inverse, min_p, edge, True, BLOCK)
        edge = _edge_of_row(logits_ptr, vocabulary, peak, inverse, min_p, edge, target, True, BLOCK)
    for block in range(0, blocks):
        token = block * BLOCK + tl.arange(0, BLOCK)
        behind, left = distances(logits_ptr, token, token < vocabulary, peak, inverse, min_p)
        behind = tl.where(left & (behind.to(tl.int32, bitcast=True) <= edge), behind, float("inf"))
        tl.store(winners_ptr + block, winner_of_block(behind, block * BLOCK, seed, position, index, BLOCK))
    tl.debug_barrier()
    _, winner = winner_of_winners(logits_ptr, winners_ptr, blocks, vocabulary, peak, inverse, seed, position, index, MAX_BLOCKS)
    return winner


@triton.jit
def _among_found(logits_ptr, found_ptr, found, winners_ptr, blocks, vocabulary, sure_weight, target, peak, inverse, by_mass, low,
                 high, seed, position, index, MAX_BLOCKS: tl.constexpr, CAPACITY: tl.constexpr):  # fmt: skip
    """The token of a row whose candidates are collected; NOBODY if the edge is not among them.

    They lie in the order in which programs came: sums in float64 do not depend on it.
    """
    place = tl.arange(0, CAPACITY)
    token = tl.load(found_ptr + place, place < found, other=0)
    behind, left = distances(logits_ptr, token, place < found, peak, inverse, 0.0)
    weight = tl.where(left, weight_of(behind, by_mass), 0.0).to(tl.float64)
    winner = tl.full((), NOBODY, tl.int32)
    if (sure_weight < target) & (sure_weight + tl.sum(weight, 0) >= target):
        bits = behind.to(tl.int32, bitcast=True)
        edge = edge_within(bits, weight, target - sure_weight, low, high, 1)
        score = tl.where(left & (bits <= edge), noise(token, seed, position, index) - behind, -float("inf"))
        highest, winner = best(score, token)
        rival, its = winner_of_winners(
            logits_ptr, winners_ptr, blocks, vocabulary, peak, inverse, seed, position, index, MAX_BLOCKS
        )
        winner = tl.where((rival > highest) | ((rival == highest) & (its < winner)), its, winner)
    return winner


@triton.jit(do_not_specialize=["blocks", "splits"])
def finish_kernel(
    logits_ptr, temperature_ptr, top_k_ptr, top_p_ptr, min_p_ptr, seeds_ptr, index_ptr, positions_ptr,
    winner_ptr, found_ptr, state_ptr, weight_ptr, out_ptr, logits_stride, vocabulary, blocks, splits,
    BLOCK: tl.constexpr, MAX_SPLITS: tl.constexpr, MAX_BLOCKS: tl.constexpr, CAPACITY: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """The token of one row that is not settled. If the bounds did not hold, or held too many tokens, the row is searched whole."""
    let_successor_start(PDL)
    after_predecessor(PDL)
    row = tl.program_id(0).to(tl.int64)
    state_ptr += row * 8
    mode = tl.load(state_ptr)
    if mode != SETTLED:
        logits_ptr += row * logits_stride
        winner_ptr += row * blocks
        weight_ptr += row * 2 * splits
        peak = tl.load(state_ptr + 1).to(tl.float32, bitcast=True)
        found, low, high = tl.load(state_ptr + 2), tl.load(state_ptr + 3), tl.load(state_ptr + 4)
        top_k, top_p, min_p = tl.load(top_k_ptr + row), tl.load(top_p_ptr + row), tl.load(min_p_ptr + row)
        seed, position, index = tl.load(seeds_ptr + row), tl.load(positions_ptr + row), tl.load(index_ptr + row)
        inverse = tl.div_rn(1.0, tl.load(temperature_ptr + row))
        winner = tl.full((), NOBODY, tl.int32)
        if (mode == SPREAD) & (low == INFINITY):
            _, winner = winner_of_winners(
                logits_ptr, winner_ptr, blocks, vocabulary, peak, inverse, seed, position, index, MAX_BLOCKS
            )
        elif (mode == SPREAD) & (found <= CAPACITY):
            split = tl.arange(0, MAX_SPLITS)
            sure_weight = tl.sum(tl.load(weight_ptr + split, split < splits, other=0.0).to(tl.float64), 0)
            weight = tl.sum(tl.load(weight_ptr + splits + split, split < splits, other=0.0).to(tl.float64), 0)
            target = tl.where(top_k > 0, tl.minimum(top_k.to(tl.float64), weight), top_p * weight)
            winner = _among_found(
                logits_ptr, found_ptr + row * CAPACITY, found, winner_ptr, blocks, vocabulary, sure_weight, target, peak, inverse,
                top_k <= 0, low, high, seed, position, index, MAX_BLOCKS, CAPACITY,
            )  # fmt: skip
        if winner == NOBODY:
            winner = _among_all(
                logits_ptr, winner_ptr, blocks, vocabulary, peak, inverse, top_k, top_p, min_p, seed, position, index, BLOCK,
                MAX_BLOCKS,
            )  # fmt: skip
        tl.store(out_ptr + row, tl.where(winner < vocabulary, winner, 0).to(tl.int64))
