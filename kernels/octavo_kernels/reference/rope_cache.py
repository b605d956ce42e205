"""RoPE on queries and keys, and the write of keys and values into the paged cache, in plain torch. Knows no model."""

import torch

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
    page_size, head_dim = kv.shape[3:]
    tokens, rotating = qkv.shape[0], num_heads + num_kv_heads
    heads = qkv.view(tokens, rotating + num_kv_heads, head_dim)
    if q_norm is not None:
        heads[:, :num_heads] = rmsnorm(heads[:, :num_heads], q_norm, eps)
    if k_norm is not None:
        heads[:, num_heads:rotating] = rmsnorm(heads[:, num_heads:rotating], k_norm, eps)
    _rotate(heads, rotating, cos_sin.index_select(0, positions))
    keys_values = heads[:, num_heads:].nan_to_num(0, 0, 0).view(tokens, 2, num_kv_heads, head_dim)
    if int(slots.min()) < 0:
        kept = slots >= 0
        slots, keys_values = slots[kept], keys_values[kept]
    kv[slots // page_size, :, :, slots % page_size] = keys_values
    return heads[:, :num_heads]


def _rotate(heads: torch.Tensor, rotating: int, cos_sin: torch.Tensor) -> None:
    tokens, rot = cos_sin.shape
    angles = cos_sin.view(tokens, 1, 2, rot // 2)
    sin = angles[:, :, 1]
    pairs = heads[:, :rotating, :rot].view(tokens, rotating, 2, rot // 2)
    left, right = pairs.unbind(2)
    rotated = pairs * angles[:, :, :1]
    first, second = rotated.unbind(2)
    first.addcmul_(right, sin, value=-1)
    second.addcmul_(left, sin)
    pairs.copy_(rotated)
