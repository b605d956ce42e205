"""``Linear``: one projection as one operation that owns its weight. Knows which way of multiplying suits a device, no model.

On a CPU without bfloat16 arithmetic, torch multiplies bfloat16 matrices one dot product at a time. FBGEMM's kernel for packed
float16 weights and float32 activations is 1.6 times as fast for one token, 7 times for eight, and reads the same bytes. It
loses nothing that matters: a bfloat16 weight is exact in float16 from 2^-17 up, and off by at most 2^-25 below that.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypedDict, Unpack

import torch

from octavo_kernels import for_device
from octavo_kernels.reference import invariant as row_by_row
from octavo_kernels.reference.linear import surround

FLOAT16_MAX = 65504.0
PACKED_ROWS = 512  # FBGEMM pads the input's dimension to a multiple of it


class Precision(NamedTuple):
    """``weights``: what the weights are rounded to. ``activations``: hidden states and the KV cache. ``packed``: by FBGEMM.

    ``invariant``: by the kernels of which a token's result does not depend on what else is computed.
    """

    weights: torch.dtype
    activations: torch.dtype
    packed: bool
    invariant: bool = False


def precision_for(dtype: torch.dtype, device: torch.device, invariant: bool = False) -> Precision:
    """How a model of ``dtype`` is computed on ``device``: as it is, or with packed weights and float32 activations."""
    packed = device.type == "cpu" and dtype != torch.float32 and "fbgemm" in torch.backends.quantized.supported_engines
    return Precision(dtype, torch.float32 if packed else dtype, packed, invariant)


def linear_bytes(rows: int, columns: int, precision: Precision) -> int:
    """What a weight [rows, columns] takes once it is a ``Linear``; a packed one whose values are out of range takes more."""
    if precision.packed:
        return 2 * rows * (-(-columns // PACKED_ROWS) * PACKED_ROWS)
    return rows * columns * precision.activations.itemsize


class Surroundings(TypedDict, total=False):
    """What a projection does beside multiplying, see ``octavo_kernels``' ``linear``: ``norm`` and ``eps`` to its input,
    ``swiglu`` to its output, which goes to ``out`` or is added to ``residual``.
    """

    norm: torch.Tensor
    eps: float
    swiglu: bool
    residual: torch.Tensor
    out: torch.Tensor


class DenseLinear:
    """``x @ weight.T + bias`` by the device's kernels."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None, invariant: bool = False) -> None:
        """``weight`` [out, in] and ``bias`` [out] in the dtype of the activations. ``invariant``: see ``Precision``."""
        self._multiply = for_device(weight.device, invariant).linear
        self._weight = weight
        self._bias = bias

    def __call__(self, x: torch.Tensor, **around: Unpack[Surroundings]) -> torch.Tensor:
        """[T, in] to [T, out]."""
        return self._multiply(x, self._weight, self._bias, **around)


class PackedLinear:
    """``x @ weight.T + bias`` for float32 ``x``, the weight packed as float16 by FBGEMM."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None, invariant: bool = False) -> None:
        """``weight`` [out, in], of magnitudes up to 65504, and ``bias`` [out], which stays float32.

        ``invariant``: see ``Precision``.
        """
        self._packed = torch.ops.quantized.linear_prepack_fp16(weight.float(), None if bias is None else bias.float())
        self._multiply = torch.ops.quantized.linear_dynamic_fp16.default
        self._surround = row_by_row.surround if invariant else surround

    def __call__(self, x: torch.Tensor, **around: Unpack[Surroundings]) -> torch.Tensor:
        """[T, in] to [T, out]."""
        return self._surround(lambda x: self._multiply(x, self._packed), x, **around)


Linear = DenseLinear | PackedLinear


def make_linear(weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor], precision: Precision) -> Linear:
    """One operation for projections [out_i, in] of the same input, their outputs side by side; ``biases`` may be empty."""
    weight = weights[0] if len(weights) == 1 else torch.cat(list(weights))
    bias = torch.cat(list(biases)) if biases else None
    if precision.packed and weight.abs().max() <= FLOAT16_MAX:
        return PackedLinear(weight, bias, precision.invariant)
    bias = None if bias is None else bias.to(precision.activations)
    return DenseLinear(weight.to(precision.activations), bias, precision.invariant)
