"""The noise of sampling, in Triton: Philox, Gumbel, and who wins a block of tokens. Knows no filter.

The winner is the largest ``-log(-log(u)) - behind``, or in other words the first arrival ``-log(u) exp(behind)``. Logarithms of
every token would cost more than reading it, and ``-log(u)`` is hardly more than ``1 - u`` where it matters: so arrivals are
bounded by that, and only a block in which the bounds leave more than one token is scored in full.
"""

import triton
import triton.language as tl

NOBODY = tl.constexpr(2147483647)


@triton.jit
def exp(x):
    """e**x; unlike ``tl.exp`` without a detour for results too small to be normal numbers."""
    return tl.exp2(x * 1.4426950408889634)


@triton.jit
def _complement(word):
    """1 - u, exactly, of the random word that stands for u = (word // 512 + 0.5) / 2**23."""
    return ((word >> 9) ^ 0x3FFFFFFF).to(tl.float32, bitcast=True) - 0.999999940395355224609375


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
def _words_of_block(start, seed, position, index, BLOCK: tl.constexpr):
    """The random words of the BLOCK tokens from ``start`` on: one generator call for four."""
    first, second, third, fourth = _words(start // 4 + tl.arange(0, BLOCK // 4), seed, position, index)
    return tl.reshape(tl.join(tl.join(first, third), tl.join(second, fourth)), (BLOCK,))


@triton.jit
def noise(token, seed, position, index):
    """Noise of tokens in any order."""
    first, second, third, fourth = _words(token // 4, seed, position, index)
    place = token % 4
    return _gumbel(tl.where(place < 2, tl.where(place == 0, first, second), tl.where(place == 2, third, fourth)))


@triton.jit
def best(score, token):
    """The largest score and the lowest token that has it; NOBODY if there is none above minus infinity."""
    highest = tl.max(score, 0)
    return highest, tl.min(tl.where((score == highest) & (score > -float("inf")), token, NOBODY), 0)


@triton.jit
def winner_of_block(behind, start, seed, position, index, BLOCK: tl.constexpr):
    """Which of the BLOCK tokens from ``start`` on wins; NOBODY if all are infinitely far behind.

    With v = 1 - u, v <= -log(u) <= v (1 + v) for v <= 1/2. So whoever arrives first by v exp(behind) at time ``first`` arrives
    before first (1 + first) in truth, and whoever cannot by then is out; the 1e-5 is for rounding.
    """
    arrival = _complement(_words_of_block(start, seed, position, index, BLOCK)) * exp(behind)
    first = tl.min(arrival, 0)
    latest = tl.where(first <= 0.5, first * (1.00001 + first), float("inf"))
    place = tl.arange(0, BLOCK)
    rivals = tl.sum(tl.where(arrival <= latest, 65536 + place, 0), 0)  # how many, and (if it is one) where
    winner = start + rivals - 65536
    if rivals >= 131072:
        score = _gumbel(_words_of_block(start, seed, position, index, BLOCK)) - behind
        _, winner = best(score, start + place)
    return winner


@triton.jit
def winner_of_winners(logits_ptr, winners_ptr, blocks, vocabulary, peak, inverse, seed, position, index, MAX_BLOCKS: tl.constexpr):
    """The best score among the winners of a row's blocks, and whose it is."""
    block = tl.arange(0, MAX_BLOCKS)
    token = tl.load(winners_ptr + block, block < blocks, other=NOBODY)
    there = (token >= 0) & (token < vocabulary)
    behind = (peak - tl.load(logits_ptr + token, there, other=-float("inf"))) * inverse
    return best(tl.where(there, noise(token, seed, position, index) - behind, -float("inf")), token)
