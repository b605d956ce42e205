"""rmsnorm against its definition in float64."""

from typing import NamedTuple

import torch


class Case(NamedTuple):
    name: str
    rows: int
    width: int
    residual: bool


CASES = [Case("one-row", 1, 64, False), Case("odd-width", 3, 576, False), Case("residual", 5, 96, True)]
GPU_CASES = [Case("8b", 4096, 4096, True), Case("wide", 33, 16384, True), Case("many", 16384, 576, False)]


def test_rmsnorm(place, case: Case) -> None:
    x = place.put(torch.randn(case.rows, 2 * case.width))[:, : case.width]  # rows need not be packed
    weight = place.put(torch.randn(case.width))
    residual = place.put(torch.randn(case.rows, case.width)) if case.residual else None
    total = x.double() if residual is None else (x.double() + residual.double()).to(place.dtype).double()
    expected = total / (total.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()

    out = place.kernels.rmsnorm(x, weight, 1e-5, residual)

    assert out.dtype == place.dtype
    assert ((out - expected).norm(dim=-1) <= place.tolerance * expected.norm(dim=-1)).all()
    if residual is not None:
        torch.testing.assert_close(residual.double(), total, rtol=place.tolerance, atol=1e-6)
