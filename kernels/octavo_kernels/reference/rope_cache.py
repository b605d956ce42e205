"""RoPE on queries and keys, and the write of keys and values into the paged cache, in plain torch. Knows no model."""

import torch


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
    ``kv``: [num_pages, 2, num_kv_heads, page_size, D], written in place.
    ``q_norm``, ``k_norm``: [D], RMSNorm weights applied to each head before the rotation, with ``eps``.
    """
    head_dim, page_size = kv.shape[4], kv.shape[3]
    heads = qkv.view(qkv.shape[0], num_heads + 2 * num_kv_heads, head_dim)
    if q_norm is not None:
        _normalise(heads[:, :num_heads], q_norm, eps)
    if k_norm is not None:
        _normalise(heads[:, num_heads : num_heads + num_kv_heads], k_norm, eps)
    _rotate(heads[:, : num_heads + num_kv_heads], cos_sin.index_select(0, positions))
    keys_values = heads[:, num_heads:].view(-1, 2, num_kv_heads, head_dim)
    if int(slots.min()) < 0:
        kept = slots >= 0
        slots, keys_values = slots[kept], keys_values[kept]
    kv[slots // page_size, :, :, slots % page_size] = keys_values.to(kv.dtype)
    return heads[:, :num_heads]


def _normalise(heads: torch.Tensor, weight: torch.Tensor, eps: float) -> None:
    wide = heads.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    torch.mul((wide * scale).to(heads.dtype), weight, out=heads)


def _rotate(heads: torch.Tensor, cos_sin: torch.Tensor) -> None:
    rot = cos_sin.shape[-1]
    cos, sin = cos_sin[:, None].chunk(2, dim=-1)
    pairs = heads[..., :rot].float().view(*heads.shape[:2], 2, rot // 2)
    rotated = pairs * cos[:, :, None]
    rotated[:, :, 0].addcmul_(pairs[:, :, 1], sin, value=-1)
    rotated[:, :, 1].addcmul_(pairs[:, :, 0], sin)
    heads[..., :rot] = rotated.view(*heads.shape[:2], rot)
