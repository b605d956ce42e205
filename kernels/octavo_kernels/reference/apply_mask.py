"""Takes from some rows of the logits all tokens that a grammar does not allow, in plain torch. Knows bits, no grammar."""

import torch


def apply_mask(logits: torch.Tensor, rows: torch.Tensor, board: torch.Tensor, places: torch.Tensor) -> None:
    """Make ``logits`` (float32 [R, V]) minus infinity in place where a token is not allowed.

    ``rows``: int64 [K], those that are masked, each once. ``board``: int32 [P, ceil(V / 32)], in memory that the device of
    ``logits`` can read. ``places``: int64 [K], which of the board's masks is that of each row: token t is allowed if bit t % 32 of
    its word t // 32 is set.
    """
    bits = (board[places][:, :, None] >> torch.arange(32, dtype=torch.int32, device=board.device)) & 1
    forbidden = bits.flatten(1)[:, : logits.shape[1]] == 0
    logits[rows] = logits[rows].masked_fill(forbidden, float("-inf"))
