"""Sampling of one token per row, in plain torch: filters, then Gumbel-max with a counter RNG. Knows no request."""

import numpy as np
import torch

from octavo_kernels.reference.philox import philox

_NEAR = 8.0
_LOUDEST = 16.64  # u is an odd multiple of 2**-24, so the noise -log(-log(u)) is less than this
_NEAREST = 1024


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
    likeliest = logits.argmax(-1)
    rows = temperature.nonzero().view(-1)
    if rows.numel():
        if rows.numel() < logits.shape[0]:
            logits, temperature, top_k, top_p, min_p, seeds, sample_index, positions = (
                option[rows] for option in (logits, temperature, top_k, top_p, min_p, seeds, sample_index, positions)
            )
        behind = _distances(logits, likeliest[rows], temperature, min_p)
        _filter(behind, top_k.long(), top_p)
        likeliest[rows] = _gumbel_max(behind, seeds, sample_index.long(), positions)
    return likeliest if out is None else out.copy_(likeliest)


def _distances(logits: torch.Tensor, likeliest: torch.Tensor, temperature: torch.Tensor, min_p: torch.Tensor) -> torch.Tensor:
    """How far each token is behind the likeliest, in nats at the temperature; infinity for what ``min_p`` drops."""
    behind = (logits.gather(1, likeliest[:, None]) - logits).mul_((1 / temperature)[:, None])
    if bool((min_p > 0).any()):
        behind.masked_fill_(torch.exp(-behind) < min_p[:, None], torch.inf)
    return behind


def _filter(behind: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> None:
    """Set the distance of what top-k and top-p drop to infinity, in place."""
    rows = ((top_k > 0) | (top_p < 1)).nonzero().view(-1)
    if rows.numel():
        chosen = behind[rows]
        largest = int(top_k[rows].max())
        nearest = largest if int(top_k[rows].min()) else max(_NEAREST, largest)
        limit = _limit(chosen, top_k[rows], top_p[rows], min(nearest, behind.shape[1]))
        behind[rows] = chosen.masked_fill_(chosen > limit, torch.inf)


def _limit(behind: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, nearest: int) -> torch.Tensor:
    """The largest distance [R, 1] that top-k and top-p keep, looked for among the ``nearest``, or else among all."""
    ordered = behind.topk(nearest, largest=False).values
    kth = ordered.gather(1, (top_k - 1).clamp(0, nearest - 1)[:, None])
    kth = torch.where(top_k[:, None] > 0, kth, torch.inf)
    nucleus = top_p[:, None] < 1
    if not bool(nucleus.any()):
        return kth
    total = torch.exp(-behind).masked_fill_(behind > kth, 0).sum(-1, keepdim=True, dtype=torch.float64)
    mass = torch.exp(-ordered).double().masked_fill_(ordered > kth, 0).cumsum(-1)
    reached = mass >= top_p[:, None] * total
    if nearest < behind.shape[1] and not bool((reached[:, -1:] | ~nucleus).all()):
        return _limit(behind, top_k, top_p, behind.shape[1])
    edge = ordered.gather(1, reached.int().argmax(-1, keepdim=True))
    return torch.where(reached[:, -1:] & nucleus, torch.minimum(edge, kth), kth)


def _gumbel_max(behind: torch.Tensor, seeds: torch.Tensor, sample_index: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """The winner of each row. Noise is drawn for what is near the likeliest, then for what could still beat the best of that."""
    rows, vocabulary = behind.shape
    fours = torch.nn.functional.pad(behind, (0, -vocabulary % 4), value=torch.inf).view(rows, -1, 4)
    closest = fours.amin(-1)
    scores = torch.full_like(fours, -torch.inf)
    near = closest < _NEAR
    _score(scores, fours, near, seeds, sample_index, positions)
    best = scores.view(rows, -1).amax(-1, keepdim=True)
    _score(scores, fours, (closest < _LOUDEST - best) & ~near, seeds, sample_index, positions)
    return scores.view(rows, -1).argmax(-1)


def _score(
    scores: torch.Tensor,
    fours: torch.Tensor,
    chosen: torch.Tensor,
    seeds: torch.Tensor,
    index: torch.Tensor,
    positions: torch.Tensor,
) -> None:
    """Set the scores of the ``chosen`` [R, N] fours of tokens."""
    row, four = chosen.nonzero(as_tuple=True)
    scores[row, four] = _noise(four, positions[row], index[row], seeds[row]).sub_(fours[row, four])


def _noise(four: torch.Tensor, positions: torch.Tensor, sample_index: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """Gumbel noise [N, 4] of the tokens 4 * ``four`` to 4 * ``four`` + 3."""
    words = [word.numpy().astype(np.uint32) for word in (four, positions, sample_index, torch.zeros_like(four))]
    drawn = np.stack(philox((words[0], words[1], words[2], words[3]), seeds.numpy().view(np.uint64)), axis=-1)
    uniform = torch.from_numpy((drawn >> np.uint32(9)).astype(np.float32)).add_(0.5).mul_(2**-23)
    return uniform.log_().neg_().log_().neg_()
