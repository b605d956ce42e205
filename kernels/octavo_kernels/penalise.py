"""Repetition, presence and frequency penalties, in Triton, from counts that stay on the device. Knows rows, no request.

Moves two bytes a token of the penalised rows, and the logits of the tokens that they have seen; other rows cost nothing.
"""

import torch
import triton
import triton.language as tl

from octavo_kernels.hopper import after_predecessor, let_successor_start, pdl

_BLOCK = 4096
_PROGRAMS = 1024


@triton.jit
def _penalise_kernel(
    logits_ptr, seen_ptr, rows_ptr, repetition_ptr, presence_ptr, frequency_ptr, logits_stride, seen_stride, vocabulary,
    BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """A share of one row's blocks."""
    let_successor_start(PDL)
    after_predecessor(PDL)
    place = tl.program_id(1).to(tl.int64)
    row = tl.load(rows_ptr + place).to(tl.int64)
    repetition, presence = tl.load(repetition_ptr + place), tl.load(presence_ptr + place)
    frequency = tl.load(frequency_ptr + place)
    if (repetition != 1) | (presence != 0) | (frequency != 0):
        for start in range(tl.program_id(0) * BLOCK, vocabulary, tl.num_programs(0) * BLOCK):
            token = start + tl.arange(0, BLOCK)
            seen = tl.load(seen_ptr + row * seen_stride + token, token < vocabulary, other=0).to(tl.int32)
            logit = tl.load(logits_ptr + place * logits_stride + token, seen > 0, other=0.0)
            count = seen >> 1
            cost = frequency * count + presence * tl.minimum(count, 1)
            logit = tl.where(logit > 0, tl.div_rn(logit, repetition), logit * repetition) - cost
            tl.store(logits_ptr + place * logits_stride + token, logit, seen > 0)


def penalise(
    logits: torch.Tensor,
    seen: torch.Tensor,
    rows: torch.Tensor,
    repetition: torch.Tensor,
    presence: torch.Tensor,
    frequency: torch.Tensor,
) -> None:
    """Change ``logits`` (float32 [R, V]) in place by what their rows have seen; the definitions are vLLM's.

    ``seen`` int16 [max_rows, V]: twice how often a row's answer holds the token, plus 1 if its prompt does. ``rows`` int32 or
    int64 [R]: the row of ``seen`` that belongs to each row of ``logits``. The coefficients are float32 [R]. The logit of any seen
    token is divided by ``repetition`` if positive and multiplied by it if not (1 is off); then ``frequency`` times the answer's
    count is taken from it, and ``presence`` once if the answer holds the token.
    """
    count, vocabulary = logits.shape
    if count:
        splits = min(triton.cdiv(vocabulary, _BLOCK), max(1, _PROGRAMS // count))
        launch = pdl(logits.device)
        _penalise_kernel[(splits, count)](
            logits, seen, rows, repetition, presence, frequency, logits.stride(0), seen.stride(0), vocabulary,
            BLOCK=_BLOCK, PDL=launch.PDL, num_warps=8, **launch.options,
        )  # fmt: skip
