"""RMSNorm with an optional residual add, in plain torch. Knows no model."""

import torch


def rmsnorm(x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor | None = None) -> torch.Tensor:
    """Normalise each row of ``x`` [T, D] by its root mean square and scale it by ``weight`` [D]; returns [T, D] in x's dtype.

    With ``residual`` [T, D], ``residual += x`` in place and the norm of that sum is returned. The norm is taken in float32 and
    rounded to x's dtype before the weight is applied, as Transformers' ``LlamaRMSNorm`` does.
    """
    if residual is not None:
        x = residual.add_(x)
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale).to(x.dtype) * weight
