"""The twin of ``octavo_kernels.linear`` in plain torch: a projection with what comes before and after it. Knows no model."""

from collections.abc import Callable

import torch
from torch.nn.functional import linear as multiply

from octavo_kernels.reference.rmsnorm import rmsnorm
from octavo_kernels.reference.swiglu import swiglu as activate


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
    """``x`` [T, K] times ``weight`` [N, K], transposed, plus ``bias`` [N]; returns [T, N].

    ``norm`` [K]: multiply ``rmsnorm(x, norm, eps)`` instead. ``swiglu``: return silu(gate) * up [T, N / 2], gate in the first half
    of the rows of ``weight``. ``residual``: add the result to it in place and return it. ``out``: write the result there; it may be
    float32.
    """
    return surround(lambda x: multiply(x, weight, bias), x, norm=norm, eps=eps, swiglu=swiglu, residual=residual, out=out)


def surround(
    multiply: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    *,
    norm: torch.Tensor | None = None,
    eps: float = 0.0,
    swiglu: bool = False,
    residual: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """What ``linear`` does, around any product ``multiply``."""
    result = multiply(x if norm is None else rmsnorm(x, norm, eps))
    if swiglu:
        result = activate(result)
    if residual is not None:
        return residual.add_(result)
    return result if out is None else out.copy_(result)
