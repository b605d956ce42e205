"""A projection with what comes before and after it: one operation, by whichever of four kernels suits its shape. Knows no model.

One row: ``gemv``. On Hopper, a few rows: ``skinny``, gate and up of many: ``gated``. Anything else: the device's own library
between the norm's and the activation's kernels. Which tiling a shape takes is frozen in ``linear_table``.
"""

import torch
from torch.nn.functional import linear as multiply

from octavo_kernels import gated, gemv, hopper, skinny
from octavo_kernels.linear_table import GATED_ROWS, gemv_tiling, skinny_tiling
from octavo_kernels.rmsnorm import rmsnorm
from octavo_kernels.swiglu import swiglu as activate

_HALVES = torch.bfloat16, torch.float16


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
    """``x`` [T, K] times ``weight`` [N, K], transposed, plus ``bias`` [N]; returns [T, N]. For one stream at a time.

    ``norm`` [K]: multiply ``rmsnorm(x, norm, eps)`` instead. ``swiglu``: return silu(gate) * up [T, N / 2], gate in the first half
    of the rows of ``weight``. ``residual``: add the result to it in place and return it. ``out``: write the result there; it may be
    float32. Rows of ``x`` need not be packed; everything else is.
    """
    rows, half = x.shape[0], x.dtype in _HALVES
    if half and rows == 1:
        target = _target(x, weight, swiglu, residual, out)
        return gemv.gemv(x, weight, bias, norm, eps, swiglu, residual, target, gemv_tiling(*weight.shape))
    if norm is not None:
        x = rmsnorm(x, norm, eps)
    if half and rows > 1 and hopper.is_hopper(x.device) and skinny.takes(x):
        tiling = skinny_tiling(rows, *weight.shape)
        if tiling is not None:
            return skinny.skinny(x, weight, bias, swiglu, residual, _target(x, weight, swiglu, residual, out), tiling)
        if swiglu and rows >= GATED_ROWS and bias is None and residual is None and out is None and gated.takes(weight):
            return gated.gated(x, weight)
    return _by_library(x, weight, bias, swiglu, residual, out)


def _target(
    x: torch.Tensor, weight: torch.Tensor, swiglu: bool, residual: torch.Tensor | None, out: torch.Tensor | None
) -> torch.Tensor:
    """Where a kernel writes."""
    target = out if residual is None else residual
    if target is None:
        target = torch.empty((x.shape[0], weight.shape[0] // (2 if swiglu else 1)), dtype=x.dtype, device=x.device)
    return target


def _by_library(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    swiglu: bool,
    residual: torch.Tensor | None,
    out: torch.Tensor | None,
) -> torch.Tensor:
    if swiglu:
        result = activate(multiply(x, weight, bias))
    elif residual is not None and bias is None:
        return residual.addmm_(x, weight.t())
    elif out is not None and bias is None:
        return _multiply_into(out, x, weight)
    else:
        result = multiply(x, weight, bias)
    if residual is not None:
        return residual.add_(result)
    return result if out is None else out.copy_(result)


def _multiply_into(out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if out.dtype == x.dtype:
        return torch.mm(x, weight.t(), out=out)
    if x.is_cuda:
        return torch.mm(x, weight.t(), out_dtype=out.dtype, out=out)
    return out.copy_(torch.mm(x, weight.t()))
