"""RoPE on queries and keys and the write of keys and values into the paged cache, in one Triton pass. Knows no model."""

import torch
import triton
import triton.language as tl

from octavo_kernels.hopper import after_predecessor, let_successor_start, pdl

_MANY_TOKENS = 512


@triton.jit
def _normed(x, inverse, weight_ptr, dim, END: tl.constexpr, chosen):
    """RMSNorm of dims ``dim`` below END of the ``chosen`` heads."""
    weight = tl.load(weight_ptr + dim, dim < END, other=0).to(tl.float32)
    return tl.where(chosen, x * inverse * weight, x)


@triton.jit
def _put(
    x, dim, inside, token, head, slot, q_ptr, kv_ptr, page_stride, side_stride, head_stride,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    """Store dims ``dim`` of a token's heads: queries to the result, keys and values to the token's slot."""
    tl.store(q_ptr + (token * HEADS + head) * HEAD_DIM + dim, x.to(q_ptr.dtype.element_ty), inside & (head < HEADS))
    is_v = head >= HEADS + KV_HEADS
    kv_head = tl.where(is_v, head - HEADS - KV_HEADS, head - HEADS)
    tile = (slot // PAGE) * page_stride + is_v.to(tl.int64) * side_stride + kv_head * head_stride
    written = inside & (head >= HEADS) & (slot >= 0)
    tl.store(kv_ptr + tile + (slot % PAGE) * HEAD_DIM + dim, x.to(kv_ptr.dtype.element_ty), written)


@triton.jit
def _rope_cache_kernel(
    qkv_ptr, positions_ptr, cos_sin_ptr, slots_ptr, kv_ptr, q_norm_ptr, k_norm_ptr, q_ptr,
    qkv_stride, page_stride, side_stride, head_stride, eps,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, ROT: tl.constexpr, PAGE: tl.constexpr,
    Q_NORM: tl.constexpr, K_NORM: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_HALF: tl.constexpr, BLOCK_REST: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    let_successor_start(PDL)
    HALF: tl.constexpr = ROT // 2
    token = tl.program_id(0).to(tl.int64)
    head = (tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H))[:, None]
    known = head < HEADS + 2 * KV_HEADS
    left_dim = tl.arange(0, BLOCK_HALF)[None, :]
    right_dim = HALF + left_dim
    paired = known & (left_dim < HALF)
    source = qkv_ptr + token * qkv_stride + head * HEAD_DIM
    after_predecessor(PDL)
    slot = tl.load(slots_ptr + token)
    angle = cos_sin_ptr + tl.load(positions_ptr + token) * ROT + left_dim
    left = tl.load(source + left_dim, paired, other=0).to(tl.float32)
    right = tl.load(source + right_dim, paired, other=0).to(tl.float32)
    if ROT < HEAD_DIM:
        rest_dim = ROT + tl.arange(0, BLOCK_REST)[None, :]
        passing = known & (rest_dim < HEAD_DIM)
        rest = tl.load(source + rest_dim, passing, other=0).to(tl.float32)

    if Q_NORM or K_NORM:
        squares = tl.sum(left * left, 1) + tl.sum(right * right, 1)
        if ROT < HEAD_DIM:
            squares += tl.sum(rest * rest, 1)
        inverse = tl.rsqrt(squares / HEAD_DIM + eps)[:, None]
    if Q_NORM:
        is_q = head < HEADS
        left = _normed(left, inverse, q_norm_ptr, left_dim, HALF, is_q)
        right = _normed(right, inverse, q_norm_ptr, right_dim, ROT, is_q)
        if ROT < HEAD_DIM:
            rest = _normed(rest, inverse, q_norm_ptr, rest_dim, HEAD_DIM, is_q)
    if K_NORM:
        is_k = (head >= HEADS) & (head < HEADS + KV_HEADS)
        left = _normed(left, inverse, k_norm_ptr, left_dim, HALF, is_k)
        right = _normed(right, inverse, k_norm_ptr, right_dim, ROT, is_k)
        if ROT < HEAD_DIM:
            rest = _normed(rest, inverse, k_norm_ptr, rest_dim, HEAD_DIM, is_k)

    turns = head < HEADS + KV_HEADS
    cos = tl.where(turns, tl.load(angle, left_dim < HALF, other=1), 1)
    sin = tl.where(turns, tl.load(angle + HALF, left_dim < HALF, other=0), 0)
    _put(
        left * cos - right * sin, left_dim, paired, token, head, slot, q_ptr, kv_ptr, page_stride, side_stride, head_stride,
        HEADS, KV_HEADS, HEAD_DIM, PAGE,
    )  # fmt: skip
    _put(
        right * cos + left * sin, right_dim, paired, token, head, slot, q_ptr, kv_ptr, page_stride, side_stride, head_stride,
        HEADS, KV_HEADS, HEAD_DIM, PAGE,
    )  # fmt: skip
    if ROT < HEAD_DIM:
        _put(
            rest, rest_dim, passing, token, head, slot, q_ptr, kv_ptr, page_stride, side_stride, head_stride,
            HEADS, KV_HEADS, HEAD_DIM, PAGE,
        )  # fmt: skip


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
    # Many tokens fill the device with all their heads a program; of few, a token's heads are spread.
    numbers = 8192 if qkv.shape[0] >= _MANY_TOKENS else 1024
    return rope_cache_by(numbers, qkv, positions, cos_sin, slots, kv, num_heads, num_kv_heads, q_norm, k_norm, eps)


def rope_cache_by(
    numbers: int,
    qkv: torch.Tensor,
    positions: torch.Tensor,
    cos_sin: torch.Tensor,
    slots: torch.Tensor,
    kv: torch.Tensor,
    num_heads: int,
    num_kv_heads: int,
    q_norm: torch.Tensor | None,
    k_norm: torch.Tensor | None,
    eps: float,
) -> torch.Tensor:
    """``rope_cache`` with as many heads a program as have ``numbers`` numbers: this decides in which order a head is summed."""
    page_size, head_dim = kv.shape[3:]
    tokens, heads, rot = qkv.shape[0], num_heads + 2 * num_kv_heads, cos_sin.shape[1]
    q = torch.empty((tokens, num_heads, head_dim), dtype=qkv.dtype, device=qkv.device)
    if tokens:
        block_h = min(max(1, numbers // triton.next_power_of_2(head_dim)), triton.next_power_of_2(heads))
        launch = pdl(qkv.device)
        _rope_cache_kernel[(tokens, triton.cdiv(heads, block_h))](
            qkv, positions, cos_sin, slots, kv, qkv if q_norm is None else q_norm, qkv if k_norm is None else k_norm, q,
            qkv.stride(0), *kv.stride()[:3], eps,
            HEADS=num_heads, KV_HEADS=num_kv_heads, HEAD_DIM=head_dim, ROT=rot, PAGE=page_size,
            Q_NORM=q_norm is not None, K_NORM=k_norm is not None, BLOCK_H=block_h, BLOCK_HALF=triton.next_power_of_2(rot // 2),
            BLOCK_REST=triton.next_power_of_2(max(1, head_dim - rot)), PDL=launch.PDL, num_warps=4, **launch.options,
        )  # fmt: skip
    return q
