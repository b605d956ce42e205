"""RMSNorm in Triton: one row a program, one read and one write. Knows no model."""

import torch
import triton
import triton.language as tl

from octavo_kernels.hopper import after_predecessor, let_successor_start, pdl


@triton.jit
def _rmsnorm_kernel(
    x_ptr, weight_ptr, out_ptr, x_stride, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    let_successor_start(PDL)
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < WIDTH
    weight = tl.load(weight_ptr + column, inside, other=0).to(tl.float32)
    after_predecessor(PDL)
    x = tl.load(x_ptr + row * x_stride + column, inside, other=0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, 0) / WIDTH + eps)
    tl.store(out_ptr + row * WIDTH + column, (x * scale * weight).to(out_ptr.dtype.element_ty), inside)


def rmsnorm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Normalise each row of ``x`` [T, D] by its root mean square and scale it by ``weight`` [D]; returns [T, D] in x's dtype.

    float32 inside. Moves 2 * T * D numbers.
    """
    rows, width = x.shape
    out = torch.empty((rows, width), dtype=x.dtype, device=x.device)
    if rows:
        block, launch = triton.next_power_of_2(width), pdl(x.device)
        _rmsnorm_kernel[(rows,)](
            x, weight, out, x.stride(0), eps, WIDTH=width, BLOCK=block, PDL=launch.PDL,
            num_warps=min(max(block // 512, 1), 16), **launch.options,
        )  # fmt: skip
    return out
