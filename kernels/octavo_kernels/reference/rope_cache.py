"""RoPE on queries and keys, and the write of keys and values into the paged cache, in plain torch. Knows no model."""

import torch

from octavo_kernels.reference.memo import of_last_call
from octavo_kernels.reference.pages import scatter
from octavo_kernels.reference.rmsnorm import rmsnorm


def rope_cache(
    qkv: torch.Tensor,
    positions: torch.Tensor,
    cos_sin: torch.Tensor,
    slots: torch.Tensor,
    kv: torch.Tensor,
    num_heads: int,
    num_kv_heads: int,
    q_norm: torch.Tensor | None = None,
    k_norm: torch.Tensor | None = None,
    eps: float = 1e-6,
) -> torch.Tensor:
    """Rotate queries and keys, write keys and values to their slots, and return the queries [T, num_heads, D].

    ``qkv``: [T, (num_heads + 2 * num_kv_heads) * D], overwritten; the result may be a view of it.
    ``positions``: int64 [T], rows of ``cos_sin`` [max_positions, rot] float32, whose first half holds cosines and whose second
    half sines. The first ``rot`` dims of a head are rotated in pairs (i, i + rot / 2), the rest pass through.
    ``slots``: int64 [T], page * page_size + offset, or -1 for a token that is not to be written.
    ``kv``: [num_pages, 2, num_kv_heads, page_size, D], written in place; what is not finite is written as 0 on a CPU.
    ``q_norm``, ``k_norm``: [D], RMSNorm weights applied to each head before the rotation, with ``eps``.
    """
    tokens, rotating = qkv.shape[0], num_heads + num_kv_heads
    heads = qkv.view(tokens, rotating + num_kv_heads, -1)
    if q_norm is not None:
        heads[:, :num_heads] = rmsnorm(heads[:, :num_heads], q_norm, eps)
    if k_norm is not None:
        heads[:, num_heads:rotating] = rmsnorm(heads[:, num_heads:rotating], k_norm, eps)
    cos, sin = _angles(cos_sin, positions)
    turning = heads.narrow(1, 0, rotating).narrow(2, 0, cos.shape[2])
    swapped = turning.roll(cos.shape[2] // 2, 2)
    turning.copy_((turning * cos).addcmul_(swapped, sin))
    scatter(kv, slots, heads.narrow(1, num_heads, 2 * num_kv_heads).nan_to_num(0.0, 0.0, 0.0))
    return heads.narrow(1, 0, num_heads)


@of_last_call
def _angles(cos_sin: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What multiplies the tokens' dims, and what multiplies them once their halves are swapped, both [T, 1, rot]."""
    cos, sin = cos_sin.index_select(0, positions)[:, None].chunk(2, dim=-1)
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)
