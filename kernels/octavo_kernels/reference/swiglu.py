"""SwiGLU over a fused gate-up projection, in plain torch. Knows no model."""

import torch


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """``silu(gate) * up`` for ``gate_up`` [T, 2F], gate in the first half; returns [T, F]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate).mul_(up)
