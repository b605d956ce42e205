"""Takes from some rows of the logits all tokens that a grammar does not allow, in plain torch. Knows bits, no grammar."""

import torch


def apply_mask(logits: torch.Tensor, places: torch.Tensor, mask: torch.Tensor) -> None:
    """Make ``logits`` (float32 [R, V]) minus infinity in place where a token is not allowed.

    ``places``: int64 [K], the rows that are masked, each once. ``mask``: int32 [K, ceil(V / 32)]: token t is allowed if bit
    t % 32 of word t // 32 is set.
    """
    bits = (mask[:, :, None] >> torch.arange(32, dtype=torch.int32, device=mask.device)) & 1
    forbidden = bits.flatten(1)[:, : logits.shape[1]] == 0
    logits[places] = logits[places].masked_fill(forbidden, float("-inf"))
