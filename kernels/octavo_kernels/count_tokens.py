"""Counts the tokens that were drawn, in Triton, for ``penalise``. Knows rows, no request."""

import torch
import triton
import triton.language as tl

from octavo_kernels.hopper import after_predecessor, let_successor_start, pdl

_BLOCK = 128


@triton.jit(do_not_specialize=["count"])
def _count_tokens_kernel(seen_ptr, rows_ptr, tokens_ptr, seen_stride, count, BLOCK: tl.constexpr, PDL: tl.constexpr):
    let_successor_start(PDL)
    after_predecessor(PDL)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(rows_ptr + place, place < count, other=0).to(tl.int64)
    at = seen_ptr + row * seen_stride + tl.load(tokens_ptr + place, place < count, other=0)
    seen = tl.load(at, place < count, other=0)
    tl.store(at, seen + 2, (place < count) & (seen < 32766))


def count_tokens(seen: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor) -> None:
    """Count ``tokens`` (int64 [R]) into ``rows`` (int32 or int64 [R]) of ``seen``, which is as ``penalise`` has it.

    A count stops at 16,383. A row that occurs twice may miss a token: only one that is never penalised may.
    """
    count = len(rows)
    if count:
        launch = pdl(seen.device)
        _count_tokens_kernel[(triton.cdiv(count, _BLOCK),)](
            seen, rows, tokens, seen.stride(0), count, BLOCK=_BLOCK, PDL=launch.PDL, num_warps=4, **launch.options
        )
