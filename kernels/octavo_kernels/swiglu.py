"""SwiGLU over a fused gate-up projection, in Triton: elementwise, float32 inside. Knows no model."""

import torch
import triton
import triton.language as tl

from octavo_kernels.hopper import after_predecessor, let_successor_start, pdl

_BLOCK = 1024


@triton.jit
def _swiglu_kernel(gate_up_ptr, out_ptr, stride, width, BLOCK: tl.constexpr, PDL: tl.constexpr):
    let_successor_start(PDL)
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    after_predecessor(PDL)
    gate = tl.load(gate_up_ptr + row * stride + column, inside, other=0).to(tl.float32)
    up = tl.load(gate_up_ptr + row * stride + width + column, inside, other=0).to(tl.float32)
    tl.store(out_ptr + row * width + column, (gate * tl.sigmoid(gate) * up).to(out_ptr.dtype.element_ty), inside)


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """``silu(gate) * up`` for ``gate_up`` [T, 2F], gate in the first half; returns [T, F]. Moves 3 * T * F numbers."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty((rows, width), dtype=gate_up.dtype, device=gate_up.device)
    if rows:
        launch = pdl(gate_up.device)
        _swiglu_kernel[(rows, triton.cdiv(width, _BLOCK))](
            gate_up, out, gate_up.stride(0), width, BLOCK=_BLOCK, PDL=launch.PDL, num_warps=4, **launch.options
        )
    return out
