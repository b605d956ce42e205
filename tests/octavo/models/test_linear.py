"""The CPU's packed projection against plain arithmetic."""

import pytest
import torch

from octavo.models.linear import DenseLinear, PackedLinear, Precision, make_linear, precision_for

PACKED = Precision(torch.bfloat16, torch.float32, packed=True)
needs_fbgemm = pytest.mark.skipif("fbgemm" not in torch.backends.quantized.supported_engines, reason="this build has no FBGEMM")


def test_precision_by_device():
    assert precision_for(torch.float32, torch.device("cpu")) == Precision(torch.float32, torch.float32, packed=False)
    assert precision_for(torch.bfloat16, torch.device("cuda")) == Precision(torch.bfloat16, torch.bfloat16, packed=False)


@needs_fbgemm
@pytest.mark.parametrize("tokens", [1, 3, 8, 33])
@pytest.mark.parametrize(("rows", "columns"), [(48, 48), (37, 576), (960, 1536)])
def test_packed(tokens, rows, columns):
    source = torch.Generator().manual_seed(1)
    weights = [torch.randn(rows, columns, generator=source).bfloat16() * 0.05 for _ in range(2)]
    biases = [torch.randn(rows, generator=source).bfloat16() for _ in range(2)]
    x = torch.randn(tokens, columns, generator=source)
    projection = make_linear(weights, biases, PACKED)
    assert isinstance(projection, PackedLinear)
    expected = torch.cat([x.double() @ w.double().T + b.double() for w, b in zip(weights, biases, strict=True)], dim=1)
    torch.testing.assert_close(projection(x).double(), expected, atol=2e-5, rtol=0)


@needs_fbgemm
def test_weights_that_float16_cannot_hold_are_not_packed():
    weight = torch.eye(8).bfloat16() * 1e6
    projection = make_linear([weight], [], PACKED)
    assert isinstance(projection, DenseLinear)
    assert torch.equal(projection(torch.ones(1, 8)), torch.full((1, 8), weight[0, 0].item()))
