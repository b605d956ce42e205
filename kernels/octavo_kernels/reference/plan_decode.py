"""What a step's lengths alone decide about ``paged_decode``, in plain torch. Knows no scheduler."""

from typing import NamedTuple

import torch

# Padding costs about 0.25 us per token and row, a row of its own about 60 us more: alone is cheaper from this many on.
_WORTHWHILE_PADDING = 256


class DecodePlan(NamedTuple):
    """``apart``: a plan for each row where the rows are attended to one by one, else empty. ``longest``: tokens of the longest row.

    ``mask``: float32 [R, 1, 1, longest], -inf for tokens behind their row's end, or None if rows are equally long.
    ``empty``: bool [R, 1, 1], rows of length 0, or None if there is none.
    """

    apart: tuple["DecodePlan", ...]
    longest: int
    mask: torch.Tensor | None
    empty: torch.Tensor | None


def plan_decode(context_lens: torch.Tensor, num_kv_heads: int) -> "DecodePlan":
    """Plan ``paged_decode`` over rows of ``context_lens`` int32 [R] tokens; holds for every layer of ``num_kv_heads`` heads."""
    lengths = context_lens.tolist()
    longest, shortest = max(lengths, default=0), min(lengths, default=0)
    if longest - sum(lengths) / max(1, len(lengths)) > _WORTHWHILE_PADDING:
        return DecodePlan(tuple(plan_decode(length, num_kv_heads) for length in context_lens.split(1)), longest, None, None)
    mask = empty = None
    if shortest < longest:
        behind = torch.arange(longest) >= context_lens[:, None]
        mask = torch.zeros(behind.shape).masked_fill_(behind, -torch.inf)[:, None, None]
        empty = (context_lens == 0)[:, None, None] if shortest == 0 else None
    return DecodePlan((), longest, mask, empty)
