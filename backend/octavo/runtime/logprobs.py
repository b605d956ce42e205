"""Log-probabilities of chosen tokens and of their likeliest rivals, from raw logits. Knows no request and no sampling options."""

from collections.abc import Callable, Sequence

import torch

from octavo.engine.messages import TokenLogprobs

SLICE_BYTES = 64 * 2**20


def token_logprobs(logits: torch.Tensor, token_ids: torch.Tensor, counts: Sequence[int]) -> list[TokenLogprobs]:
    """One entry a row of ``logits`` (float32 [N, V]): its token of ``token_ids`` (int64 [N]), then the ``counts[i]`` likeliest."""
    logprobs = torch.log_softmax(logits, -1)
    chosen = logprobs.gather(1, token_ids[:, None])
    ranks = (logprobs > chosen).sum(-1) + 1
    best, best_ids = logprobs.topk(min(max(counts), logits.shape[1]))
    given = zip(token_ids.tolist(), chosen.view(-1).tolist(), ranks.tolist(), strict=True)
    rivals = zip(counts, best_ids.tolist(), best.tolist(), strict=True)
    return [
        TokenLogprobs([token, *ids[:count]], [logprob, *values[:count]], [rank, *range(1, len(ids[:count]) + 1)])
        for (token, logprob, rank), (count, ids, values) in zip(given, rivals, strict=True)
    ]


def prompt_logprobs(
    hidden: torch.Tensor, token_ids: torch.Tensor, count: int, logits_of: Callable[[torch.Tensor], torch.Tensor], vocab_size: int
) -> list[TokenLogprobs]:
    """Score ``token_ids`` (int64 [N]) by the hidden states before them ([N, hidden]), in slices whose logits take 64 MiB."""
    step = max(1, SLICE_BYTES // (4 * vocab_size))
    entries: list[TokenLogprobs] = []
    for part, tokens in zip(hidden.split(step), token_ids.split(step), strict=True):
        entries += token_logprobs(logits_of(part), tokens, [count] * len(tokens))
    return entries
