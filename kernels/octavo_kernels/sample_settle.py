"""The second step of sampling, in Triton: one program a row draws, or leaves bounds for a pass over the row. Knows no batch.

Distances ``behind = (largest logit - logit) / temperature`` are floats >= 0, so their bits compare like integers and an edge is
found by bisection over bits. If the largest logits of the groups alone reach the edge, then whatever lies within it is in the few
groups whose largest logit does. If not, a sample of the row tells between which two distances the edge almost surely is.
"""

import triton
import triton.language as tl

from octavo_kernels.hopper import after_predecessor, let_successor_start
from octavo_kernels.sample_noise import NOBODY, best, exp, noise, winner_of_winners

SETTLED, SPREAD, ALONE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)  # drawn; by many programs; by one program
INFINITY = tl.constexpr(0x7F800000)  # the bits of it
_COARSE = tl.constexpr(1 << 15)  # of bits: 0.4% of a distance


@triton.jit
def edge_within(bits, weight, target, beyond, limit, RESOLUTION: tl.constexpr):
    """The least bits (to RESOLUTION) up to which the weights reach ``target``: more than ``beyond``, ``limit`` at most."""
    low = tl.full((), beyond, tl.int32)
    high = tl.full((), limit, tl.int32)
    while high - low > RESOLUTION:
        middle = low + (high - low) // 2
        if tl.sum(tl.where(bits <= middle, weight, 0), 0) >= target:
            high = middle
        else:
            low = middle
    return high


@triton.jit
def distances(logits_ptr, token, inside, peak, inverse, min_p):
    """Distances of some tokens and which of them are left after ``min_p``."""
    behind = (peak - tl.load(logits_ptr + token, inside, other=-float("inf"))) * inverse
    return behind, inside & (behind < float("inf")) & (exp(-behind) >= min_p)


@triton.jit
def _span(behind, left):
    """Bits between which to look for an edge first: a largest distance (of no more than 64 nats) and a 4096th of it."""
    largest = tl.minimum(tl.max(tl.where(left, behind, 0.0), 0), 64.0).to(tl.int32, bitcast=True)
    return tl.maximum(largest - (12 << 23), -1), largest


@triton.jit
def _greedy(logits_ptr, peaks, peak, vocabulary, GROUP: tl.constexpr, MAX_GROUPS: tl.constexpr):
    """The lowest token that has the largest logit."""
    nearest = tl.min(tl.where(peaks == peak, tl.arange(0, MAX_GROUPS), MAX_GROUPS), 0)
    token = nearest * GROUP + tl.arange(0, GROUP)
    logit = tl.load(logits_ptr + token, token < vocabulary, other=float("nan"))
    return tl.min(tl.where(logit == peak, token, NOBODY), 0)


@triton.jit
def _mass_of_blocks(block_peak_ptr, block_mass_ptr, blocks, peak, inverse, MAX_BLOCKS: tl.constexpr):
    """The mass of a row, relative to its largest logit."""
    block = tl.arange(0, MAX_BLOCKS)
    there = block < blocks
    behind = (peak - tl.load(block_peak_ptr + block, there, other=-float("inf"))) * inverse
    mass = tl.load(block_mass_ptr + block, there, other=0.0)
    return tl.sum(tl.where(there & (behind < float("inf")), mass * exp(-behind), 0.0), 0)


@triton.jit
def _reach_of_groups(behind, within, top_k, top_p, min_p, mass):
    """Bits up to which the nearest tokens of the groups ``within`` alone reach the edge; infinity if they do not.

    Without top-k, ``mass`` is the row's.
    """
    bits = behind.to(tl.int32, bitcast=True)
    bound = tl.full((), INFINITY, tl.int32)
    if (top_k > 0) | (min_p <= 0):
        weight = tl.where(within, tl.where(top_k > 0, 1.0, exp(-behind)), 0.0)
        target = tl.where(top_k > 0, top_k.to(tl.float32), top_p * mass * 1.00001)
        beyond, limit = _span(behind, within)
        if tl.sum(tl.where(bits <= limit, weight, 0.0), 0) >= target:
            bound = edge_within(bits, weight, target, beyond, limit, _COARSE)
    return bound


@triton.jit
def _collect(logits_ptr, found_ptr, within, vocabulary, peak, inverse, min_p, bound,
             GROUP: tl.constexpr, TILE: tl.constexpr, FEW: tl.constexpr, LISTED: tl.constexpr):  # fmt: skip
    """Write the tokens not beyond ``bound`` of the groups ``within`` to ``found_ptr``, FEW of them at most, and behind them the
    bits of their distances. Returns how many there are, or more than FEW if there are more groups than LISTED."""
    number = tl.sum(within.to(tl.int32), 0)
    count = FEW + 1
    if number <= LISTED:
        listed_ptr = found_ptr + 2 * FEW
        tl.store(listed_ptr + tl.cumsum(within.to(tl.int32), 0) - 1, tl.arange(0, within.shape[0]), within)
        tl.debug_barrier()
        count = 0
        for at in range(0, number * GROUP, TILE):
            place = at + tl.arange(0, TILE)
            token = tl.load(listed_ptr + place // GROUP, place < number * GROUP, other=0) * GROUP + place % GROUP
            behind, left = distances(logits_ptr, token, (place < number * GROUP) & (token < vocabulary), peak, inverse, min_p)
            bits = behind.to(tl.int32, bitcast=True)
            left = left & (bits <= bound)
            slot = count + tl.cumsum(left.to(tl.int32), 0) - 1
            tl.store(found_ptr + slot, token, left & (slot < FEW))
            tl.store(found_ptr + FEW + slot, bits, left & (slot < FEW))
            count += tl.sum(left.to(tl.int32), 0)
        tl.debug_barrier()
    return count


@triton.jit
def _edge_of_pairs(found_ptr, count, top_k, top_p, mass, FEW: tl.constexpr, PAIRED: tl.constexpr):
    """The edge among PAIRED candidates at most: whatever lies up to each of them is counted and weighed at once."""
    place = tl.arange(0, PAIRED)
    bits = tl.load(found_ptr + FEW + place, place < count, other=INFINITY)
    weight = exp(-bits.to(tl.float32, bitcast=True))
    number, mass_up_to = tl.zeros((PAIRED, 16), tl.int32), tl.zeros((PAIRED, 16), tl.float32)
    for at in range(0, count, 16):
        others = tl.load(found_ptr + FEW + at + tl.arange(0, 16), at + tl.arange(0, 16) < count, other=INFINITY)
        near = others[None, :] <= bits[:, None]
        number += near.to(tl.int32)
        mass_up_to += tl.where(near, exp(-others.to(tl.float32, bitcast=True))[None, :], 0.0)
    number, mass_up_to = tl.sum(number, 1), tl.sum(mass_up_to, 1)
    edge = tl.min(tl.where(number >= tl.where(top_k > 0, top_k, NOBODY), bits, INFINITY), 0)
    total = tl.where(mass > 0, mass, tl.sum(tl.where(bits <= edge, weight, 0.0), 0))
    nucleus = tl.min(tl.where(mass_up_to >= tl.where(top_p < 1, top_p * total, float("inf")), bits, INFINITY), 0)
    return tl.minimum(edge, nucleus)


@triton.jit
def _edge_of_few(found_ptr, count, top_k, top_p, mass, FEW: tl.constexpr):
    """The edge among FEW candidates at most."""
    place = tl.arange(0, FEW)
    bits = tl.load(found_ptr + FEW + place, place < count, other=INFINITY)
    edge = tl.max(tl.where(place < count, bits, 0), 0)
    if top_k > 0:
        edge = edge_within(bits, (place < count).to(tl.int32), top_k, -1, edge, 1)
    if top_p < 1:
        weight = tl.where(bits <= edge, exp(-bits.to(tl.float32, bitcast=True)), 0.0)
        edge = edge_within(bits, weight, top_p * tl.where(mass > 0, mass, tl.sum(weight, 0)), -1, edge, 1)
    return edge


@triton.jit
def _draw(found_ptr, count, top_k, top_p, mass, seed, position, index, FEW: tl.constexpr, PAIRED: tl.constexpr):
    """The winner among the ``count`` candidates that top-k and top-p keep; ``mass``: of the row, or 0 if it is theirs."""
    if count <= PAIRED:
        edge = _edge_of_pairs(found_ptr, count, top_k, top_p, mass, FEW, PAIRED)
    else:
        edge = _edge_of_few(found_ptr, count, top_k, top_p, mass, FEW)
    place = tl.arange(0, FEW)
    token = tl.load(found_ptr + place, place < count, other=0)
    bits = tl.load(found_ptr + FEW + place, place < count, other=INFINITY)
    score = noise(token, seed, position, index) - bits.to(tl.float32, bitcast=True)
    _, winner = best(tl.where((place < count) & (bits <= edge), score, -float("inf")), token)
    return winner


@triton.jit
def _fall_to(bits, weight, rest, above, limit):
    """Two neighbours (to 0.1% of a distance) between which the weight beyond falls to ``rest`` or less."""
    low, high = above, limit
    while high - low > 1 << 13:
        middle = low + (high - low) // 2
        if tl.sum(tl.where(bits > middle, weight, 0.0), 0) <= rest:
            high = middle
        else:
            low = middle
    return low, high


@triton.jit
def _bounds(logits_ptr, vocabulary, peak, inverse, top_k, top_p, min_p, mass, SAMPLE: tl.constexpr):
    """The bits of two distances between which the edge of top-k or top-p is, almost surely.

    The edge is where the weight beyond falls to ``rest``. In the sample that weight is a sum of SAMPLE draws, whose variance the
    sample tells too: its fall is looked for 4.5 deviations, and as many tokens, before and behind.
    """
    place = tl.arange(0, SAMPLE)
    token = (place // 8 * (vocabulary // 8) // (SAMPLE // 8)) * 8 + place % 8  # eight neighbours are one sector of memory
    behind, left = distances(logits_ptr, token, token < vocabulary, peak, inverse, min_p)
    by_mass = top_k <= 0
    weight = tl.where(left, tl.where(by_mass, exp(-behind), 1.0), 0.0)
    share = SAMPLE / vocabulary.to(tl.float32)
    total = tl.where(by_mass & (min_p <= 0), mass * share, tl.sum(weight, 0))
    rest = tl.where(by_mass, (1 - top_p) * total, tl.maximum(total - top_k * share, 0.0))
    beyond, limit = _span(behind, left)
    bits = behind.to(tl.int32, bitcast=True)
    _, middle = _fall_to(bits, weight, rest, beyond, limit)
    tail = tl.where(bits > middle, weight, 0.0)
    rough = tl.sum(tail, 0)
    deviation = tl.sqrt(tl.maximum(tl.sum(tail * tail, 0) - rough * rough / SAMPLE, 0.0))
    margin = 4.5 * (deviation + tl.where(by_mass, exp(-middle.to(tl.float32, bitcast=True)), 1.0))
    low, _ = _fall_to(bits, weight, rest + margin, beyond, middle)
    _, high = _fall_to(bits, weight, rest - margin, middle, limit)
    return tl.where(low > beyond, low, -1), tl.where(high < limit, high, INFINITY)


@triton.jit(do_not_specialize=["groups", "blocks"])
def settle_kernel(
    logits_ptr, temperature_ptr, top_k_ptr, top_p_ptr, min_p_ptr, seeds_ptr, index_ptr, positions_ptr,
    group_peak_ptr, block_peak_ptr, block_mass_ptr, winner_ptr, found_ptr, state_ptr, out_ptr,
    logits_stride, vocabulary, groups, blocks,
    GROUP: tl.constexpr, MAX_GROUPS: tl.constexpr, MAX_BLOCKS: tl.constexpr, TILE: tl.constexpr, FEW: tl.constexpr,
    PAIRED: tl.constexpr, LISTED: tl.constexpr, SAMPLE: tl.constexpr, CAPACITY: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """The token of one row, or what another pass needs to find it: its mode, the row's peak, a counter, two bounds."""
    let_successor_start(PDL)
    after_predecessor(PDL)
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * logits_stride
    found_ptr += row * CAPACITY
    state_ptr += row * 8
    group = tl.arange(0, MAX_GROUPS)
    peaks = tl.load(group_peak_ptr + row * groups + group, group < groups, other=-float("inf"))
    peak = tl.max(peaks, 0)
    temperature = tl.load(temperature_ptr + row)
    mode = tl.full((), SETTLED, tl.int32)
    winner = tl.full((), NOBODY, tl.int32)
    if temperature > 0:
        top_k, top_p, min_p = tl.load(top_k_ptr + row), tl.load(top_p_ptr + row), tl.load(min_p_ptr + row)
        seed, position, index = tl.load(seeds_ptr + row), tl.load(positions_ptr + row), tl.load(index_ptr + row)
        inverse = tl.div_rn(1.0, temperature)
        if (top_k <= 0) & (top_p >= 1) & (min_p <= 0):
            _, winner = winner_of_winners(
                logits_ptr, winner_ptr + row * blocks, blocks, vocabulary, peak, inverse, seed, position, index, MAX_BLOCKS
            )
        else:
            mass = 0.0
            if (top_k <= 0) & (top_p < 1) & (min_p <= 0):
                mass = _mass_of_blocks(
                    block_peak_ptr + row * blocks, block_mass_ptr + row * blocks, blocks, peak, inverse, MAX_BLOCKS
                )
            behind = (peak - peaks) * inverse
            within = (behind < float("inf")) & (exp(-behind) >= min_p)
            bound = _reach_of_groups(behind, within, top_k, top_p, min_p, mass)
            within = within & (behind.to(tl.int32, bitcast=True) <= bound)
            count = _collect(logits_ptr, found_ptr, within, vocabulary, peak, inverse, min_p, bound, GROUP, TILE, FEW, LISTED)
            if count <= FEW:
                winner = _draw(found_ptr, count, top_k, top_p, mass, seed, position, index, FEW, PAIRED)
            else:
                mode = tl.where((top_k > 0) & (top_p < 1), ALONE, SPREAD)
                low = tl.full((), INFINITY, tl.int32)
                high = low
                if (top_k > 0) | (top_p < 1):
                    low, high = _bounds(logits_ptr, vocabulary, peak, inverse, top_k, top_p, min_p, mass, SAMPLE)
                tl.store(state_ptr + 1, peak.to(tl.int32, bitcast=True))
                tl.store(state_ptr + 2, 0)
                tl.store(state_ptr + 3, low)
                tl.store(state_ptr + 4, high)
    else:
        winner = _greedy(logits_ptr, peaks, peak, vocabulary, GROUP, MAX_GROUPS)
    tl.store(state_ptr, mode)
    if mode == SETTLED:
        tl.store(out_ptr + row, tl.where(winner < vocabulary, winner, 0).to(tl.int64))
