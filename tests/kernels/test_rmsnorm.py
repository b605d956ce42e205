"""rmsnorm against its definition in float64."""

from typing import NamedTuple

import torch


class Case(NamedTuple):
    name: str
    rows: int
    width: int


CASES = [Case("one-row", 1, 64), Case("odd-width", 3, 576), Case("narrow", 5, 96)]
GPU_CASES = [Case("8b", 4096, 4096), Case("wide", 33, 16384), Case("many", 16384, 576)]


def test_rmsnorm(place, case: Case) -> None:
    x = place.put(torch.randn(case.rows, 2 * case.width))[:, : case.width]  # rows need not be packed
    weight = place.put(torch.randn(case.width))
    expected = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()

    out = place.kernels.rmsnorm(x, weight, 1e-5)

    assert out.dtype == place.dtype
    assert ((out - expected).norm(dim=-1) <= place.tolerance * expected.norm(dim=-1)).all()
