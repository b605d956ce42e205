"""Log-probabilities of chosen tokens and of their likeliest rivals, from raw logits. Knows no request and no sampling options."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from octavo.engine.messages import TokenLogprobs

SLICE_BYTES = 64 * 2**20


def score(logits: torch.Tensor, token_ids: torch.Tensor, rivals: int) -> torch.Tensor:
    """float64 [N, 3 + 2 * k] of ``logits`` (float32 [N, V]) and one token of each row (``token_ids``, int64 [N]).

    The token, its log-probability, its rank, then the ids of the k likeliest tokens and their log-probabilities; k is ``rivals``
    or the whole vocabulary. One tensor, so that it goes to the host in one copy; token ids are exact in float64.
    """
    logprobs = torch.log_softmax(logits, -1)
    chosen = logprobs.gather(1, token_ids[:, None])
    ranks = (logprobs > chosen).sum(-1, keepdim=True) + 1
    best, best_ids = logprobs.topk(min(rivals, logits.shape[1]))
    return torch.cat([part.double() for part in (token_ids[:, None], chosen, ranks, best_ids, best)], 1)


def entries_of(scores: np.ndarray, counts: Sequence[int]) -> list[TokenLogprobs]:
    """One entry a row of what ``score`` made: its token, then the ``counts[i]`` likeliest."""
    most = (scores.shape[1] - 3) // 2
    ids = np.concatenate([scores[:, :1], scores[:, 3 : 3 + most]], 1).astype(np.int64)
    values = np.concatenate([scores[:, 1:2], scores[:, 3 + most :]], 1)
    return [
        TokenLogprobs(ids[at, : count + 1].tolist(), values[at, : count + 1].tolist(), [rank, *range(1, min(count, most) + 1)])
        for at, (count, rank) in enumerate(zip(counts, scores[:, 2].astype(int).tolist(), strict=True))
    ]


def prompt_logprobs(
    hidden: torch.Tensor, token_ids: torch.Tensor, count: int, logits_of: Callable[[torch.Tensor], torch.Tensor], vocab_size: int
) -> list[TokenLogprobs]:
    """Score ``token_ids`` (int64 [N]) by the hidden states before them ([N, hidden]), in slices whose logits take 64 MiB."""
    step = max(1, SLICE_BYTES // (4 * vocab_size))
    entries: list[TokenLogprobs] = []
    for part, tokens in zip(hidden.split(step), token_ids.split(step), strict=True):
        entries += entries_of(score(logits_of(part), tokens, count).cpu().numpy(), [count] * len(tokens))
    return entries
