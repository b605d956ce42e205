"""The first pass of sampling, in Triton: what one read of the logits can tell of every row. Knows no candidates."""

import triton
import triton.language as tl

from octavo_kernels.hopper import after_predecessor, let_successor_start
from octavo_kernels.sample_noise import NOBODY, exp, winner_of_block


@triton.jit(do_not_specialize=["groups"])
def scan_kernel(
    logits_ptr, temperature_ptr, top_k_ptr, top_p_ptr, min_p_ptr, seeds_ptr, index_ptr, positions_ptr,
    group_peak_ptr, block_peak_ptr, block_mass_ptr, winner_ptr, logits_stride, vocabulary, groups,
    BLOCK: tl.constexpr, GROUP: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Of one block of one row: the largest logit of each group of tokens and, for the rows that need it, the block's mass
    (relative to its own largest logit), or the token that wins in it when nothing is filtered."""
    let_successor_start(PDL)
    after_predecessor(PDL)
    row = tl.program_id(1).to(tl.int64)
    start = tl.program_id(0) * BLOCK
    at = row * tl.num_programs(0) + tl.program_id(0)
    temperature = tl.load(temperature_ptr + row)
    token = start + tl.arange(0, BLOCK)
    logit = tl.load(logits_ptr + row * logits_stride + token, token < vocabulary, other=-float("inf"))
    peaks = tl.max(tl.reshape(logit, (BLOCK // GROUP, GROUP)), 1)
    group = start // GROUP + tl.arange(0, BLOCK // GROUP)
    tl.store(group_peak_ptr + row * groups + group, peaks, group < groups)
    if temperature > 0:
        top_k, top_p, min_p = tl.load(top_k_ptr + row), tl.load(top_p_ptr + row), tl.load(min_p_ptr + row)
        peak = tl.max(peaks, 0)
        behind = (peak - logit) * tl.div_rn(1.0, temperature)
        if (top_k <= 0) & (top_p >= 1) & (min_p <= 0):
            winner = tl.full((), NOBODY, tl.int32)
            if peak > -float("inf"):
                seed, position, index = tl.load(seeds_ptr + row), tl.load(positions_ptr + row), tl.load(index_ptr + row)
                winner = winner_of_block(behind, start, seed, position, index, BLOCK)
            tl.store(winner_ptr + at, winner)
        elif (top_k <= 0) & (top_p < 1):
            tl.store(block_peak_ptr + at, peak)
            tl.store(block_mass_ptr + at, tl.sum(tl.where(behind >= 0, exp(-behind), 0.0), 0))
