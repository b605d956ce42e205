"""Takes from some rows of the logits all tokens that a grammar does not allow, in Triton. Knows bits, no grammar.

The masks may lie in the host's memory. So all that a program reads of them it reads at once, 16 bytes a thread: what it waits for
is the way there, once.
"""

import torch
import triton
import triton.language as tl

from octavo_kernels.hopper import after_predecessor, let_successor_start, pdl

_WORDS = 512
_WIDE = 4  # words in 16 bytes


@triton.jit
def _apply_mask_kernel(
    logits_ptr, rows_ptr, board_ptr, places_ptr, logits_stride, pieces, vocabulary,
    WORDS: tl.constexpr, PIECE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Some words of one row's mask, which is ``pieces`` times ``PIECE`` words long."""
    let_successor_start(PDL)
    after_predecessor(PDL)
    nth = tl.program_id(1)
    row, place = tl.load(rows_ptr + nth), tl.load(places_ptr + nth)
    at = tl.program_id(0) * WORDS + tl.arange(0, WORDS)
    # Fetched anew: what is cached of the host's memory is not what the host has written since.
    word = tl.load(board_ptr + place * pieces * PIECE + at, at < pieces * PIECE, other=-1, volatile=True)
    # A warp takes a word, and each of its threads a bit: it writes a run of memory though which of it is not known beforehand.
    bit = tl.max_contiguous(tl.arange(0, 32), 1)[:, None]
    token = at[None, :] * 32 + bit
    forbidden = ((word[None, :] >> bit) & 1) == 0
    tl.store(logits_ptr + row * logits_stride + token, float("-inf"), forbidden & (token < vocabulary))


def apply_mask(logits: torch.Tensor, rows: torch.Tensor, board: torch.Tensor, places: torch.Tensor) -> None:
    """Make ``logits`` (float32 [R, V]) minus infinity in place where a token is not allowed.

    ``rows``: int64 [K], those that are masked, each once. ``board``: int32 [P, ceil(V / 32)], in memory that the device of
    ``logits`` can read. ``places``: int64 [K], which of the board's masks is that of each row: token t is allowed if bit t % 32 of
    its word t // 32 is set.
    """
    vocabulary, count, words = logits.shape[1], len(rows), board.shape[1]
    if count:
        launch = pdl(logits.device)
        piece = 1 if words % _WIDE else _WIDE
        _apply_mask_kernel[(triton.cdiv(words, _WORDS), count)](
            logits, rows, board, places, logits.stride(0), words // piece, vocabulary,
            WORDS=_WORDS, PIECE=piece, PDL=launch.PDL, num_warps=4, **launch.options,
        )  # fmt: skip
