"""One row times a weight matrix, in Triton: RMSNorm before, bias, SwiGLU or the residual add after, all in one pass. No model.

Memory-bound: reads N * K numbers of weight once. A program takes a few weight rows in tiles along K; its first tiles are under way
before the kernel's predecessor has ended.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from octavo_kernels.cuda_driver import prefer_l1_cache
from octavo_kernels.hopper import after_predecessor, let_successor_start, pdl


class Tiling(NamedTuple):
    """``rows`` of weight a program (powers of two), ``width`` of a tile along K, ``warps`` a program."""

    rows: int
    width: int
    warps: int


@triton.jit
def _tile(ptr, row, k, K: tl.constexpr, WIDTH: tl.constexpr):
    """A tile of weight from column ``k`` on."""
    column = k + tl.arange(0, WIDTH)
    at = ptr + row[:, None].to(tl.int64) * K + column[None, :]
    if K % WIDTH == 0:
        return tl.load(at, mask=k < K, other=0, eviction_policy="evict_first")
    return tl.load(at, mask=(column < K)[None, :], other=0, eviction_policy="evict_first")


@triton.jit(do_not_specialize=["features"])
def _gemv_kernel(
    x_ptr, weight_ptr, bias_ptr, norm_ptr, residual_ptr, out_ptr, features, eps,
    K: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, SWIGLU: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    let_successor_start(PDL)
    feature = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row = tl.minimum(feature, features - 1)
    offset = tl.arange(0, WIDTH)
    tile = _tile(weight_ptr, row, 0, K, WIDTH)
    if SWIGLU:
        up_ptr = weight_ptr + features.to(tl.int64) * K
        up_tile = _tile(up_ptr, row, 0, K, WIDTH)
    after_predecessor(PDL)

    total = tl.zeros((ROWS, WIDTH), tl.float32)
    up_total = tl.zeros((ROWS, WIDTH), tl.float32)
    squares = tl.zeros((WIDTH,), tl.float32)
    for k in range(0, K, WIDTH):
        inside = k + offset < K
        x = tl.load(x_ptr + k + offset, inside, other=0).to(tl.float32)
        if norm_ptr is not None:
            squares += x * x
            x *= tl.load(norm_ptr + k + offset, inside, other=0).to(tl.float32)
        total += tile.to(tl.float32) * x[None, :]
        if WIDTH < K:
            tile = _tile(weight_ptr, row, k + WIDTH, K, WIDTH)
        if SWIGLU:
            up_total += up_tile.to(tl.float32) * x[None, :]
            if WIDTH < K:
                up_tile = _tile(up_ptr, row, k + WIDTH, K, WIDTH)

    scale = tl.rsqrt(tl.sum(squares, 0) / K + eps) if norm_ptr is not None else 1.0
    result = tl.sum(total, 1) * scale
    if bias_ptr is not None:
        result += tl.load(bias_ptr + row).to(tl.float32)
    if SWIGLU:
        up = tl.sum(up_total, 1) * scale
        if bias_ptr is not None:
            up += tl.load(bias_ptr + features + row).to(tl.float32)
        result = result * tl.sigmoid(result) * up
    if residual_ptr is not None:
        result += tl.load(residual_ptr + row).to(tl.float32)
    tl.store(out_ptr + feature, result.to(out_ptr.dtype.element_ty), feature < features)


def gemv(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    norm: torch.Tensor | None,
    eps: float,
    swiglu: bool,
    residual: torch.Tensor | None,
    out: torch.Tensor,
    tiling: Tiling,
) -> torch.Tensor:
    """``linear`` of one row: ``x`` [1, K] into ``out`` [1, N] (which may be ``residual``)."""
    features, launch = out.shape[1], pdl(x.device)
    kernel = _gemv_kernel[(triton.cdiv(features, tiling.rows),)](
        x, weight, bias, norm, residual, out, features, eps,
        K=weight.shape[1], ROWS=tiling.rows, WIDTH=tiling.width, SWIGLU=swiglu, PDL=launch.PDL,
        num_warps=tiling.warps, **launch.options,
    )  # fmt: skip
    if x.is_cuda:
        prefer_l1_cache(kernel.function)
    return out
