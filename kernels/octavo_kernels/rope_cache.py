"""RoPE on queries and keys and the write of keys and values into the paged cache, in one Triton pass. Knows no model."""

import torch
import triton
import triton.language as tl

_HEADS_PER_PROGRAM = 8


@triton.jit
def _rope_cache_kernel(
    qkv_ptr, positions_ptr, cos_sin_ptr, slots_ptr, kv_ptr, q_norm_ptr, k_norm_ptr, q_ptr,
    qkv_stride, page_stride, side_stride, head_stride, eps,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, ROT: tl.constexpr, PAGE: tl.constexpr,
    Q_NORM: tl.constexpr, K_NORM: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    head = (tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H))[:, None]
    dim = tl.arange(0, BLOCK_D)[None, :]
    is_q = head < HEADS
    is_v = head >= HEADS + KV_HEADS
    inside = (head < HEADS + 2 * KV_HEADS) & (dim < HEAD_DIM)
    source = qkv_ptr + token * qkv_stride + head * HEAD_DIM
    x = tl.load(source + dim, inside, other=0).to(tl.float32)

    # The other half of a rotated pair is read again: it sits in another thread's registers.
    half: tl.constexpr = ROT // 2
    rotates = (dim < ROT) & (head < HEADS + KV_HEADS)
    partner_dim = tl.where(dim < half, dim + half, dim - half)
    partner = tl.load(source + partner_dim, inside & rotates, other=0).to(tl.float32)
    if Q_NORM or K_NORM:
        inverse = tl.rsqrt(tl.sum(x * x, 1) / HEAD_DIM + eps)[:, None]
        weight = tl.full((1, 1), 1.0, tl.float32)
        partner_weight = tl.full((1, 1), 1.0, tl.float32)
        scaled = head < 0
        if Q_NORM:
            scaled = scaled | is_q
            weight = tl.where(is_q, tl.load(q_norm_ptr + dim, dim < HEAD_DIM, other=0).to(tl.float32), weight)
            partner_weight = tl.where(is_q, tl.load(q_norm_ptr + partner_dim, dim < ROT, other=0).to(tl.float32), partner_weight)
        if K_NORM:
            is_k = (head >= HEADS) & (head < HEADS + KV_HEADS)
            scaled = scaled | is_k
            weight = tl.where(is_k, tl.load(k_norm_ptr + dim, dim < HEAD_DIM, other=0).to(tl.float32), weight)
            partner_weight = tl.where(is_k, tl.load(k_norm_ptr + partner_dim, dim < ROT, other=0).to(tl.float32), partner_weight)
        x = tl.where(scaled, x * inverse * weight, x)
        partner = tl.where(scaled, partner * inverse * partner_weight, partner)

    angle = cos_sin_ptr + tl.load(positions_ptr + token) * ROT + tl.where(dim < half, dim, dim - half)
    cos = tl.load(angle, dim < ROT, other=1)
    sin = tl.load(angle + half, dim < ROT, other=0)
    turned = tl.where(rotates, x * cos + tl.where(dim < half, -partner, partner) * sin, x)
    tl.store(q_ptr + token * HEADS * HEAD_DIM + head * HEAD_DIM + dim, turned.to(q_ptr.dtype.element_ty), inside & is_q)

    slot = tl.load(slots_ptr + token)
    kv_head = tl.where(is_v, head - HEADS - KV_HEADS, head - HEADS)
    tile = (slot // PAGE) * page_stride + is_v.to(tl.int64) * side_stride + kv_head * head_stride
    written = inside & (head >= HEADS) & (slot >= 0)
    tl.store(kv_ptr + tile + (slot % PAGE) * HEAD_DIM + dim, turned.to(kv_ptr.dtype.element_ty), written)


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

    ``qkv``: [T, (num_heads + 2 * num_kv_heads) * D].
    ``positions``: int64 [T], rows of ``cos_sin`` [max_positions, rot] float32, whose first half holds cosines and whose second
    half sines. The first ``rot`` dims of a head are rotated in pairs (i, i + rot / 2), the rest pass through.
    ``slots``: int64 [T], page * page_size + offset, or -1 for a token that is not to be written.
    ``kv``: [num_pages, 2, num_kv_heads, page_size, D], written in place.
    ``q_norm``, ``k_norm``: [D], RMSNorm weights applied to each head before the rotation, with ``eps``.
    """
    page_size, head_dim = kv.shape[3:]
    tokens, heads = qkv.shape[0], num_heads + 2 * num_kv_heads
    q = torch.empty((tokens, num_heads, head_dim), dtype=qkv.dtype, device=qkv.device)
    if tokens:
        _rope_cache_kernel[(tokens, triton.cdiv(heads, _HEADS_PER_PROGRAM))](
            qkv, positions, cos_sin, slots, kv, qkv if q_norm is None else q_norm, qkv if k_norm is None else k_norm, q,
            qkv.stride(0), *kv.stride()[:3], eps,
            HEADS=num_heads, KV_HEADS=num_kv_heads, HEAD_DIM=head_dim, ROT=cos_sin.shape[1], PAGE=page_size,
            Q_NORM=q_norm is not None, K_NORM=k_norm is not None,
            BLOCK_H=_HEADS_PER_PROGRAM, BLOCK_D=triton.next_power_of_2(head_dim), num_warps=4,
        )  # fmt: skip
    return q
