"""Sampling of one token per row, in Triton: Gumbel-max behind filters that find their edge without a sort. Knows no request.

Distances ``d = (largest logit - logit) / temperature`` are floats >= 0, so their bits compare like integers and an edge is found
exactly by bisection over bits. A first kernel spreads over the vocabulary what every row needs (the maximum; for rows without
filters the winner). A second, one program a row, finishes: filtered rows collect, after one coarse histogram, the few candidates
that can lie within the edge, and bisect over those only.
"""

import torch
import triton
import triton.language as tl

_BLOCK = 4096
_CANDIDATES = 8192
_BINS = 64
_BINS_PER_NAT = 3


@triton.jit
def _gumbel(word):
    """-log(-log(u)), u an odd multiple of 2**-24 from a random word."""
    uniform = ((word >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07
    return -tl.log(-tl.log(uniform))


@triton.jit
def _words(four, seed, position, index):
    """The four random words of each run of four tokens."""
    zero = four * 0
    return tl.philox(seed, four, zero + position.to(tl.int32), zero + index, zero, 10)


@triton.jit
def _noise(token, seed, position, index):
    """Noise of tokens in any order."""
    first, second, third, fourth = _words(token // 4, seed, position, index)
    place = token % 4
    return _gumbel(tl.where(place < 2, tl.where(place == 0, first, second), tl.where(place == 2, third, fourth)))


@triton.jit
def _noise_of_block(start, seed, position, index, BLOCK: tl.constexpr):
    """Noise of the BLOCK tokens from ``start`` on: one generator call for four."""
    first, second, third, fourth = _words(start // 4 + tl.arange(0, BLOCK // 4), seed, position, index)
    return _gumbel(tl.reshape(tl.join(tl.join(first, third), tl.join(second, fourth)), (BLOCK,)))


@triton.jit
def _first(score, token, LIMIT: tl.constexpr):
    """The largest score of a block and the lowest token that has it."""
    best = tl.max(score, 0)
    return best, tl.min(tl.where(score == best, token, LIMIT), 0)


@triton.jit(do_not_specialize=["vocabulary"])
def _scan_kernel(
    logits_ptr, temperature_ptr, top_k_ptr, top_p_ptr, min_p_ptr, seeds_ptr, index_ptr, positions_ptr, peak_ptr, winner_ptr,
    logits_stride, vocabulary, BLOCK: tl.constexpr,
):  # fmt: skip
    """Of one block of one row: the largest logit, and the token that would win within it if nothing is filtered."""
    row = tl.program_id(1).to(tl.int64)
    start = tl.program_id(0) * BLOCK
    token = start + tl.arange(0, BLOCK)
    logit = tl.load(logits_ptr + row * logits_stride + token, token < vocabulary, other=-float("inf"))
    peak, winner = _first(logit, token, 2147483647)
    temperature = tl.load(temperature_ptr + row)
    filtered = (tl.load(top_k_ptr + row) > 0) | (tl.load(top_p_ptr + row) < 1) | (tl.load(min_p_ptr + row) > 0)
    if (temperature > 0) & (filtered == 0) & (peak > -float("inf")):
        behind = (peak - logit) * tl.div_rn(1.0, temperature)
        noise = _noise_of_block(start, tl.load(seeds_ptr + row), tl.load(positions_ptr + row), tl.load(index_ptr + row), BLOCK)
        _, winner = _first(noise - behind, token, 2147483647)
    at = row * tl.num_programs(0) + tl.program_id(0)
    tl.store(peak_ptr + at, peak)
    tl.store(winner_ptr + at, winner)


@triton.jit
def _distance(logits_ptr, token, inside, peak, inverse, min_p):
    """Distances of a block of tokens and which of them are left after ``min_p``."""
    behind = (peak - tl.load(logits_ptr + token, inside, other=-float("inf"))) * inverse
    return behind, inside & (behind < float("inf")) & (tl.exp(-behind) >= min_p)


@triton.jit
def _candidates(logits_ptr, found_ptr, at, count, collected, peak, inverse, min_p, BLOCK: tl.constexpr):
    """A block of candidates: tokens, distances and which are real; from ``found_ptr`` if ``collected``, else the whole row."""
    place = at + tl.arange(0, BLOCK)
    inside = place < count
    token = tl.load(found_ptr + place, inside & collected, other=0)
    token = tl.where(collected, token, place)
    behind, left = _distance(logits_ptr, token, inside, peak, inverse, min_p)
    return token, behind, left


@triton.jit
def _reach(
    logits_ptr, found_ptr, count, collected, peak, inverse, min_p, limit, target, bits, BY_MASS: tl.constexpr, BLOCK: tl.constexpr
):
    """The smallest bits of a distance up to which the candidates' number (or mass) reaches ``target``; at most ``bits``."""
    low = 0
    high = bits
    while low < high:
        middle = low + (high - low) // 2
        total = 0.0
        for at in range(0, count, BLOCK):
            _, behind, left = _candidates(logits_ptr, found_ptr, at, count, collected, peak, inverse, min_p, BLOCK)
            near = left & (behind <= limit) & (behind.to(tl.int32, bitcast=True) <= middle)
            weight = tl.exp(-behind) if BY_MASS else 1.0
            total += tl.sum(tl.where(near, weight, 0.0), 0)
        if total >= target:
            high = middle
        else:
            low = middle + 1
    return high


@triton.jit
def _collect(logits_ptr, found_ptr, vocabulary, peak, inverse, min_p, top_k, top_p, BLOCK: tl.constexpr, CAPACITY: tl.constexpr,
             BINS: tl.constexpr, BINS_PER_NAT: tl.constexpr):  # fmt: skip
    """Write the tokens that can lie within the edge to ``found_ptr``, if they fit there.

    Returns how many there are to look at, whether they were collected, an upper bound of the edge, and the row's mass and number
    of tokens after ``min_p``. The edge's bin is found from numbers alone: a bin's mass is at least its number at its far end.
    """
    counts = tl.zeros((BINS,), tl.int32)
    mass = 0.0
    for at in range(0, vocabulary, BLOCK):
        token = at + tl.arange(0, BLOCK)
        behind, left = _distance(logits_ptr, token, token < vocabulary, peak, inverse, min_p)
        counts += tl.histogram(tl.minimum(tl.where(left, behind, 0.0) * BINS_PER_NAT, BINS - 1).to(tl.int32), BINS, mask=left)
        mass += tl.sum(tl.where(left, tl.exp(-behind), 0.0), 0)
    place = tl.arange(0, BINS)
    number = tl.cumsum(counts, 0)
    sure_mass = tl.cumsum(counts * tl.exp(-(place + 1.0) / BINS_PER_NAT), 0)
    target = tl.where(top_p < 1, top_p * mass, float("inf"))
    enough = tl.where(top_k > 0, number >= top_k, sure_mass >= target)
    edge = tl.min(tl.where(enough, place, BINS - 1), 0)
    count = tl.sum(tl.where(place == edge, number, 0), 0)
    collected = count <= CAPACITY
    if collected:
        base = 0
        for at in range(0, vocabulary, BLOCK):
            token = at + tl.arange(0, BLOCK)
            behind, left = _distance(logits_ptr, token, token < vocabulary, peak, inverse, min_p)
            near = left & (tl.where(left, behind, 0.0) * BINS_PER_NAT < edge + 1)
            near = near | (left & (edge == BINS - 1))
            tl.store(found_ptr + base + tl.cumsum(near.to(tl.int32), 0) - 1, token, near)
            base += tl.sum(near.to(tl.int32), 0)
        tl.debug_barrier()
    bound = tl.where(edge == BINS - 1, float("inf"), (edge + 2.0) / BINS_PER_NAT)
    return tl.where(collected, count, vocabulary), collected, bound, mass, tl.max(number, 0)


@triton.jit
def _filtered(logits_ptr, found_ptr, vocabulary, peak, temperature, min_p, top_k, top_p, seed, position, index,
              BLOCK: tl.constexpr, CAPACITY: tl.constexpr, BINS: tl.constexpr, BINS_PER_NAT: tl.constexpr):  # fmt: skip
    """The winner among what the filters of one row keep."""
    inverse = tl.div_rn(1.0, temperature)
    count, collected, limit, mass, number = _collect(
        logits_ptr, found_ptr, vocabulary, peak, inverse, min_p, top_k, top_p, BLOCK, CAPACITY, BINS, BINS_PER_NAT
    )
    if (top_k > 0) & (top_k < number):
        bits = limit.to(tl.int32, bitcast=True)
        edge = _reach(logits_ptr, found_ptr, count, collected, peak, inverse, min_p, limit, top_k, bits, False, BLOCK)
        limit = edge.to(tl.float32, bitcast=True)
        mass = 0.0
        for at in range(0, count, BLOCK):
            _, behind, left = _candidates(logits_ptr, found_ptr, at, count, collected, peak, inverse, min_p, BLOCK)
            mass += tl.sum(tl.where(left & (behind <= limit), tl.exp(-behind), 0.0), 0)
    if top_p < 1:
        bits = limit.to(tl.int32, bitcast=True)
        edge = _reach(logits_ptr, found_ptr, count, collected, peak, inverse, min_p, limit, top_p * mass, bits, True, BLOCK)
        limit = edge.to(tl.float32, bitcast=True)

    best = -float("inf")
    winner = 2147483647
    for at in range(0, count, BLOCK):
        token, behind, left = _candidates(logits_ptr, found_ptr, at, count, collected, peak, inverse, min_p, BLOCK)
        kept = left & (behind <= limit)
        if tl.max(kept.to(tl.int32), 0) > 0:
            score = tl.where(kept, _noise(token, seed, position, index) - behind, -float("inf"))
            rival, rival_token = _first(score, token, 2147483647)
            winner = tl.where((rival > best) | ((rival == best) & (rival_token < winner)), rival_token, winner)
            best = tl.maximum(best, rival)
    return winner


@triton.jit(do_not_specialize=["vocabulary", "blocks"])
def _pick_kernel(
    logits_ptr, temperature_ptr, top_k_ptr, top_p_ptr, min_p_ptr, seeds_ptr, index_ptr, positions_ptr, peak_ptr, winner_ptr,
    found_ptr, out_ptr, logits_stride, vocabulary, blocks,
    BLOCK: tl.constexpr, MAX_BLOCKS: tl.constexpr, CAPACITY: tl.constexpr, BINS: tl.constexpr, BINS_PER_NAT: tl.constexpr,
):  # fmt: skip
    """The token of one row."""
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * logits_stride
    temperature, min_p = tl.load(temperature_ptr + row), tl.load(min_p_ptr + row)
    top_k, top_p = tl.load(top_k_ptr + row), tl.load(top_p_ptr + row)
    seed, position, index = tl.load(seeds_ptr + row), tl.load(positions_ptr + row), tl.load(index_ptr + row)
    block = tl.arange(0, MAX_BLOCKS)
    peaks = tl.load(peak_ptr + row * blocks + block, block < blocks, other=-float("inf"))
    winners = tl.load(winner_ptr + row * blocks + block, block < blocks, other=2147483647)
    peak, winner = _first(peaks, winners, 2147483647)
    if temperature > 0:
        if (top_k > 0) | (top_p < 1) | (min_p > 0):
            winner = _filtered(
                logits_ptr, found_ptr + row * CAPACITY, vocabulary, peak, temperature, min_p, top_k, top_p, seed, position, index,
                BLOCK, CAPACITY, BINS, BINS_PER_NAT,
            )  # fmt: skip
        else:
            logit = tl.load(logits_ptr + winners, (block < blocks) & (peaks > -float("inf")), other=-float("inf"))
            behind = (peak - logit) * tl.div_rn(1.0, temperature)
            _, winner = _first(_noise(winners, seed, position, index) - behind, winners, 2147483647)
    tl.store(out_ptr + row, tl.where(winner < vocabulary, winner, 0).to(tl.int64))


def sample(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    seeds: torch.Tensor,
    sample_index: torch.Tensor,
    positions: torch.Tensor,
) -> torch.Tensor:
    """Draw one token id (int64 [R]) per row of ``logits`` (float32 [R, V], left as it is).

    ``temperature`` float32 [R]: 0 takes the largest logit, the lowest id on a tie. The filters act in this order on the
    distribution at that temperature: ``min_p`` float32 [R] keeps p >= min_p * max p; ``top_k`` int32 [R] (0 is off) keeps
    whatever is no less likely than the k-th; ``top_p`` float32 [R] (1 is off) keeps, of what is left and renormalised, the
    smallest set of the likeliest that reaches it, and ties at its edge. At least one token stays.
    The winner is the largest ``log p - log(-log(u))``; token t's u comes from word t % 4 of Philox-4x32-10 with key ``seeds``
    (int64 [R]) and counter (t // 4, ``positions`` int64 [R] modulo 2**32, ``sample_index`` int32 [R],
    0), whatever the batch.
    """
    rows, vocabulary = logits.shape
    device = logits.device
    out = torch.empty(rows, dtype=torch.int64, device=device)
    if not rows:
        return out
    blocks = triton.cdiv(vocabulary, _BLOCK)
    peak = torch.empty((rows, blocks), dtype=torch.float32, device=device)
    winner = torch.empty((rows, blocks), dtype=torch.int32, device=device)
    found = torch.empty((rows, _CANDIDATES), dtype=torch.int32, device=device)
    options = temperature, top_k, top_p, min_p, seeds, sample_index, positions
    _scan_kernel[(blocks, rows)](logits, *options, peak, winner, logits.stride(0), vocabulary, BLOCK=_BLOCK, num_warps=8)
    _pick_kernel[(rows,)](
        logits, *options, peak, winner, found, out, logits.stride(0), vocabulary, blocks,
        BLOCK=_BLOCK, MAX_BLOCKS=triton.next_power_of_2(blocks), CAPACITY=_CANDIDATES, BINS=_BINS, BINS_PER_NAT=_BINS_PER_NAT,
        num_warps=16, maxnreg=128,
    )  # fmt: skip
    return out
