"""Sampling of one token per row, in Triton: Gumbel-max behind filters that find their edge without a sort. Knows no request.

Four kernels, whatever the options: a scan of the logits by many programs; a step of one program a row, which draws for most; then,
for rows whose edge lies among too many tokens for that, another pass by many programs and a last step of one program a row. A row
leaves a kernel at once that it does not need: a greedy one costs one read of its logits in any batch.
"""

from typing import NamedTuple

import torch
import triton

from octavo_kernels.hopper import pdl
from octavo_kernels.sample_finish import finish_kernel
from octavo_kernels.sample_scan import scan_kernel
from octavo_kernels.sample_settle import settle_kernel
from octavo_kernels.sample_spread import spread_kernel

_GROUP = 64  # tokens of which the scan keeps the largest logit
_FEW = 2048  # candidates that one program may draw from
_PAIRED = 128  # candidates that it compares each with each
_LISTED = 1024  # groups that it may look for them in
_TILE = 4096  # tokens that it looks at together
_PASS_BLOCK = 1024
_PROGRAMS, _SPLITS = 512, 128  # of the second pass: about how many in all, and how many a row at most
_CAPACITY = 8192  # candidates that it may collect


class Share(NamedTuple):
    """What one program takes of a row: ``block`` tokens in the first pass, one of ``splits`` parts in the second."""

    block: int
    splits: int


def sample(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    seeds: torch.Tensor,
    sample_index: torch.Tensor,
    positions: torch.Tensor,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Draw one token id (int64 [R]; into ``out`` if given) per row of ``logits`` (float32 [R, V], left as it is).

    ``temperature`` float32 [R]: 0 takes the largest logit, the lowest id on a tie. The filters act in this order on the
    distribution at that temperature: ``min_p`` float32 [R] keeps p >= min_p * max p; ``top_k`` int32 [R] (0 is off) keeps
    whatever is no less likely than the k-th; ``top_p`` float32 [R] (1 is off) keeps, of what is left and renormalised, the
    smallest set of the likeliest that reaches it, and ties at its edge. At least one token stays.
    The winner is the largest ``log p - log(-log(u))``; token t's u comes from word t % 4 of Philox-4x32-10 with key ``seeds``
    (int64 [R]) and counter (t // 4, ``positions`` int64 [R] modulo 2**32, ``sample_index`` int32 [R],
    0), whatever the batch.
    """
    rows = logits.shape[0]
    share = Share(1024 if rows <= 4 else 2048, min(_SPLITS, max(1, _PROGRAMS // max(1, rows))))
    return sample_by(share, logits, (temperature, top_k, top_p, min_p, seeds, sample_index, positions), out)


def sample_by(share: Share, logits: torch.Tensor, options: tuple[torch.Tensor, ...], out: torch.Tensor | None) -> torch.Tensor:
    """``sample`` with a given ``share``, on which the last digits of a row's sums depend."""
    rows, vocabulary = logits.shape
    device = logits.device
    out = torch.empty(rows, dtype=torch.int64, device=device) if out is None else out
    if not rows:
        return out
    blocks, groups, pass_blocks = (triton.cdiv(vocabulary, size) for size in (share.block, _GROUP, _PASS_BLOCK))
    max_groups, max_blocks, max_pass_blocks = (triton.next_power_of_2(number) for number in (groups, blocks, pass_blocks))
    splits = min(pass_blocks, share.splits)
    group_peak, block_peak, block_mass, weight = _scratch(rows, (groups, blocks, blocks, 2 * splits), torch.float32, device)
    found, winner, state = _scratch(rows, (_CAPACITY, pass_blocks, 8), torch.int32, device)
    temperature, top_k, _, min_p, seeds, sample_index, positions = options
    stride = logits.stride(0)
    pdl_on, launch = pdl(device)
    scan_kernel[(blocks, rows)](
        logits, *options, group_peak, block_peak, block_mass, winner, stride, vocabulary, groups,
        BLOCK=share.block, GROUP=_GROUP, PDL=pdl_on, num_warps=4, maxnreg=64, **launch,
    )  # fmt: skip
    settle_kernel[(rows,)](
        logits, *options, group_peak, block_peak, block_mass, winner, found, state, out, stride, vocabulary, groups, blocks,
        GROUP=_GROUP, MAX_GROUPS=max_groups, MAX_BLOCKS=max_blocks, TILE=_TILE, FEW=_FEW, PAIRED=_PAIRED, LISTED=_LISTED,
        SAMPLE=min(max(4 * max_groups, 256), 16384), CAPACITY=_CAPACITY, PDL=pdl_on,
        num_warps=8 if max_groups <= 2048 else 16, maxnreg=128, **launch,
    )  # fmt: skip
    spread_kernel[(splits, rows)](
        logits, temperature, top_k, min_p, seeds, sample_index, positions, winner, found, state, weight,
        stride, vocabulary, pass_blocks,
        BLOCK=_PASS_BLOCK, CAPACITY=_CAPACITY, PDL=pdl_on, num_warps=8, maxnreg=64, **launch,
    )  # fmt: skip
    finish_kernel[(rows,)](
        logits, *options, winner, found, state, weight, out, stride, vocabulary, pass_blocks, splits,
        BLOCK=_PASS_BLOCK, MAX_SPLITS=_SPLITS, MAX_BLOCKS=max_pass_blocks, CAPACITY=_CAPACITY, PDL=pdl_on, num_warps=16, **launch,
    )  # fmt: skip
    return out


def _scratch(rows: int, sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Room for ``rows`` times each size of a four-byte dtype, each part on a boundary of 16 bytes."""
    lengths = [triton.cdiv(rows * size, 4) * 4 for size in sizes]
    return torch.empty(sum(lengths), dtype=dtype, device=device).split(lengths)
