"""swiglu against its definition in float64."""

from typing import NamedTuple

import torch


class Case(NamedTuple):
    name: str
    rows: int
    width: int


CASES = [Case("one-row", 1, 48), Case("two-blocks", 3, 1536)]
GPU_CASES = [Case("8b", 4096, 14336), Case("odd", 7, 8960 + 3)]


def test_swiglu(place, case: Case) -> None:
    gate_up = place.put(torch.randn(case.rows, 2 * case.width) * 4)
    gate, up = gate_up.double().chunk(2, dim=-1)
    expected = gate * torch.sigmoid(gate) * up

    out = place.kernels.swiglu(gate_up)

    assert out.dtype == place.dtype
    assert ((out - expected).norm(dim=-1) <= place.tolerance * expected.norm(dim=-1)).all()
