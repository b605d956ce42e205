"""Takes from some rows of the logits all tokens that a grammar does not allow, in Triton. Knows bits, no grammar."""

import torch
import triton
import triton.language as tl

from octavo_kernels.hopper import after_predecessor, let_successor_start, pdl

_BLOCK = 4096


@triton.jit
def _apply_mask_kernel(
    logits_ptr, places_ptr, mask_ptr, logits_stride, mask_stride, vocabulary, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One block of one masked row."""
    let_successor_start(PDL)
    after_predecessor(PDL)
    nth = tl.program_id(1).to(tl.int64)
    place = tl.load(places_ptr + nth).to(tl.int64)
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = token < vocabulary
    word = tl.load(mask_ptr + nth * mask_stride + (token >> 5), inside, other=-1)
    forbidden = ((word >> (token & 31)) & 1) == 0
    tl.store(logits_ptr + place * logits_stride + token, float("-inf"), inside & forbidden)


def apply_mask(logits: torch.Tensor, places: torch.Tensor, mask: torch.Tensor) -> None:
    """Make ``logits`` (float32 [R, V]) minus infinity in place where a token is not allowed.

    ``places``: int64 [K], the rows that are masked, each once. ``mask``: int32 [K, ceil(V / 32)]: token t is allowed if bit
    t % 32 of word t // 32 is set.
    """
    vocabulary, count = logits.shape[1], len(places)
    if count:
        launch = pdl(logits.device)
        _apply_mask_kernel[(triton.cdiv(vocabulary, _BLOCK), count)](
            logits, places, mask, logits.stride(0), mask.stride(0), vocabulary,
            BLOCK=_BLOCK, PDL=launch.PDL, num_warps=8, **launch.options,
        )  # fmt: skip
