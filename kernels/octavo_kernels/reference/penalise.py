"""Repetition, presence and frequency penalties, in plain torch, from counts that stay on the device. Knows rows, no request."""

import torch


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
    penalised = ((repetition != 1) | (presence != 0) | (frequency != 0)).nonzero().view(-1)
    known = seen[rows[penalised].long()]
    place, token = known.nonzero(as_tuple=True)
    count = (known[place, token] >> 1).float()
    place = penalised[place]
    cost = frequency[place] * count + presence[place] * count.clamp(max=1)
    logit, factor = logits[place, token], repetition[place]
    logits[place, token] = torch.where(logit > 0, logit / factor, logit * factor) - cost
