"""A projection whose result for a row is the same in any batch, in Triton. Knows no model.

Every element is one sum over the row's width, in order, by tiles that depend on the weight's shape alone: no split, no choice by
the number of rows. What comes before and after works on each row for itself.
"""

import torch
import triton
import triton.language as tl

from octavo_kernels.hopper import after_predecessor, let_successor_start, pdl
from octavo_kernels.rmsnorm import rmsnorm
from octavo_kernels.swiglu import swiglu as activate

_TOGETHER = 8  # tiles of rows that use the same weights one after another, while they are in the cache


@triton.jit(do_not_specialize=["rows"])
def _invariant_linear_kernel(
    x_ptr, weight_ptr, bias_ptr, out_ptr, rows, features, width, x_stride,
    BIAS: tl.constexpr, ADD: tl.constexpr, WHOLE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    TOGETHER: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    let_successor_start(PDL)
    after_predecessor(PDL)
    tiles_m = tl.cdiv(rows, BLOCK_M)
    span = TOGETHER * tl.cdiv(features, BLOCK_N)
    first = tl.program_id(0) // span * TOGETHER
    height = tl.minimum(tiles_m - first, TOGETHER)
    inner = tl.program_id(0) % span
    row = ((first + inner % height) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    feature = (inner // height * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    column = tl.arange(0, BLOCK_K)
    # What lies behind the last row or feature is computed like it, and not stored.
    x_at = x_ptr + tl.minimum(row, rows - 1)[:, None] * x_stride + column[None, :]
    weight_at = weight_ptr + tl.minimum(feature, features - 1)[None, :] * width + column[:, None]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, width, BLOCK_K):
        if WHOLE:
            x = tl.load(x_at)
            weight = tl.load(weight_at)
        else:
            x = tl.load(x_at, (column < width - start)[None, :], other=0)
            weight = tl.load(weight_at, (column < width - start)[:, None], other=0)
        total = tl.dot(x, weight, total, input_precision="ieee")
        x_at += BLOCK_K
        weight_at += BLOCK_K
    stored = (row < rows)[:, None] & (feature < features)[None, :]
    if BIAS:
        total += tl.load(bias_ptr + feature, feature < features, other=0).to(tl.float32)[None, :]
    out_at = out_ptr + row[:, None] * features + feature[None, :]
    if ADD:
        total += tl.load(out_at, stored, other=0).to(tl.float32)
    tl.store(out_at, total.to(out_ptr.dtype.element_ty), stored)


def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    norm: torch.Tensor | None = None,
    eps: float = 0.0,
    swiglu: bool = False,
    residual: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """``x`` [T, K] times ``weight`` [N, K], transposed, plus ``bias`` [N]; returns [T, N]. A row does not depend on the others.

    ``norm`` [K]: multiply ``rmsnorm(x, norm, eps)`` instead. ``swiglu``: return silu(gate) * up [T, N / 2], gate in the first half
    of the rows of ``weight``. ``residual``: add the result to it in place and return it. ``out``: write the result there; it may be
    float32. Rows of ``x`` need not be packed; everything else is.
    """
    if norm is not None:
        x = rmsnorm(x, norm, eps)
    if not swiglu:
        return _multiply(x, weight, bias, residual, out)
    result = activate(_multiply(x, weight, bias, None, None))
    if residual is not None:
        return residual.add_(result)
    return result if out is None else out.copy_(result)


def _multiply(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None, out: torch.Tensor | None
) -> torch.Tensor:
    rows, (features, width) = x.shape[0], weight.shape
    target = out if residual is None else residual
    if target is None:
        target = torch.empty((rows, features), dtype=x.dtype, device=x.device)
    if rows:
        block_m, block_n, block_k, warps, stages = _tiling(features, x.element_size())
        launch = pdl(x.device)
        _invariant_linear_kernel[(triton.cdiv(rows, block_m) * triton.cdiv(features, block_n),)](
            x, weight, weight if bias is None else bias, target, rows, features, width, x.stride(0),
            BIAS=bias is not None, ADD=residual is not None, WHOLE=width % block_k == 0,
            BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_K=block_k, TOGETHER=_TOGETHER, PDL=launch.PDL,
            num_warps=warps, num_stages=stages, enable_fp_fusion=False, **launch.options,
        )  # fmt: skip
    return target


def _tiling(features: int, element_size: int) -> tuple[int, int, int, int, int]:
    """Rows, features and columns of a tile, warps and stages. Few features: narrow tiles, so that more programs read weights."""
    if element_size == 4:
        return 32, 32, 32, 4, 2
    return (64, 64, 64, 4, 6) if features <= 4096 else (64, 128, 64, 4, 4)
