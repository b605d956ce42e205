"""Counts the tokens that were drawn, in plain torch, for ``penalise``. Knows rows, no request."""

import torch


def count_tokens(seen: torch.Tensor, rows: torch.Tensor, tokens: torch.Tensor) -> None:
    """Count ``tokens`` (int64 [R]) into ``rows`` (int32 or int64 [R]) of ``seen``, which is as ``penalise`` has it.

    A count stops at 16,383. A row that occurs twice may miss a token: only one that is never penalised may.
    """
    counted = seen[rows.long(), tokens]
    seen[rows.long(), tokens] = torch.where(counted < 32766, counted + 2, counted)
