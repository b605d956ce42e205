"""RMSNorm with an optional residual add, in plain torch. Knows no model."""

import torch


def rmsnorm(x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor | None = None) -> torch.Tensor:
    """Normalise each row of ``x`` [T, D] by its root mean square and scale it by ``weight`` [D]; returns [T, D] in x's dtype.

    With ``residual`` [T, D], ``residual += x`` in place and the norm of that sum is returned. float32 inside.
    """
    if residual is not None:
        x = residual.add_(x)
    return torch.nn.functional.rms_norm(x, weight.shape, weight, eps)
