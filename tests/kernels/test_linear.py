"""linear against its definition in float64, and its two kernels at tilings of every kind."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch

from octavo_kernels import for_device


class Case(NamedTuple):
    name: str
    rows: int
    features: int
    width: int
    around: str = ""  # of: norm, bias, swiglu, residual, wide (a float32 output)


CASES = [
    Case("one-row", 1, 48, 96),
    Case("one-row-normed", 1, 40, 64, "norm swiglu"),
    Case("one-row-odd", 1, 37, 100, "norm bias residual"),
    Case("few-rows", 3, 64, 128, "norm bias swiglu"),
    Case("residual", 5, 80, 64, "residual"),
    Case("biased-residual", 2, 32, 40, "bias residual"),
    Case("wide", 4, 33, 72, "norm wide"),
]
GPU_CASES = [
    *(Case(f"qkv-{rows}", rows, 6144, 4096, "norm bias") for rows in (1, 2, 8, 16, 17, 40, 64, 100, 128, 200)),
    *(Case(f"out-{rows}", rows, 4096, 4096, "residual") for rows in (1, 8, 33, 64, 128, 300)),
    *(Case(f"gate-up-{rows}", rows, 14336, 4096, "norm swiglu") for rows in (1, 7, 16, 24, 64, 128, 200)),
    *(Case(f"gate-up-{rows}", rows, 2816, 2048, "norm swiglu") for rows in (1023, 1024, 1025, 4097)),
    Case("odd-gate-up", 3000, 1000, 1096, "swiglu"),
    *(Case(f"down-{rows}", rows, 4096, 14336, "residual") for rows in (1, 8, 32, 64, 128)),
    *(Case(f"head-{rows}", rows, 128256, 2048, "norm wide") for rows in (1, 8, 64, 128)),
    *(Case(f"small-{rows}", rows, 1536, 576, "norm swiglu") for rows in (1, 4, 64)),
    *(Case(f"odd-{rows}", rows, 1003, 1100, "norm bias swiglu") for rows in (1, 8, 50)),
    Case("no-rows", 0, 64, 64, "norm swiglu"),
]


class Problem(NamedTuple):
    """Inputs of one call and what it must return, in float64."""

    x: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    norm: torch.Tensor | None
    residual: torch.Tensor | None
    expected: torch.Tensor


def make(place, case: Case) -> Problem:
    around, swiglu = case.around.split(), "swiglu" in case.around
    outputs = case.features * (2 if swiglu else 1)

    def draw(*shape: int) -> torch.Tensor:
        return place.put(torch.randn(shape, device=place.device))

    x = draw(case.rows, 2 * case.width)[:, : case.width]  # rows need not be packed
    weight = draw(outputs, case.width) / case.width**0.5
    bias = draw(outputs) if "bias" in around else None
    norm = draw(case.width) if "norm" in around else None
    residual = draw(case.rows, case.features) if "residual" in around else None
    expected = x.double()
    if norm is not None:
        expected = expected / (expected.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.double()
    expected = expected @ weight.double().T
    if bias is not None:
        expected += bias.double()
    if swiglu:
        gate, up = expected.chunk(2, dim=-1)
        expected = gate * torch.sigmoid(gate) * up
    if residual is not None:
        expected = residual.double() + expected
    return Problem(x, weight, bias, norm, residual, expected)


def check(out: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert ((out - expected).norm(dim=-1) <= tolerance * expected.norm(dim=-1)).all()


def test_linear(place, case: Case) -> None:
    problem = make(place, case)
    wide = "wide" in case.around
    given = torch.empty(case.rows, case.features, dtype=torch.float32, device=place.device) if wide else None

    out = place.kernels.linear(
        problem.x, problem.weight, problem.bias,
        norm=problem.norm, eps=1e-5, swiglu="swiglu" in case.around, residual=problem.residual, out=given,
    )  # fmt: skip

    assert out.dtype == (torch.float32 if wide else place.dtype)
    if wide or problem.residual is not None:
        assert out is (given if wide else problem.residual)
    check(out, problem.expected, place.tolerance)


class Here(NamedTuple):
    """Where Triton runs: on the device, else in the interpreter (whose bfloat16 products are wrong)."""

    device: torch.device
    dtype: torch.dtype
    tolerance: float

    def put(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(self.device, self.dtype)


CUDA = torch.cuda.is_available()
HERE = Here(torch.device("cuda" if CUDA else "cpu"), torch.float16, 3e-3)


@pytest.mark.parametrize("around", ["", "norm swiglu bias", "residual"])
@pytest.mark.parametrize("rows, width, warps", [(1, 32, 1), (4, 64, 4), (8, 128, 2)])
def test_gemv_at_any_tiling(around: str, rows: int, width: int, warps: int) -> None:
    from octavo_kernels.gemv import Tiling, gemv

    problem = make(HERE, Case("", 1, 37, 96, around))
    target = torch.full((1, 37), torch.nan, dtype=HERE.dtype, device=HERE.device)
    target = target if problem.residual is None else problem.residual

    gemv(problem.x, problem.weight, problem.bias, problem.norm, 1e-5, "swiglu" in around, problem.residual, target,
         Tiling(rows, width, warps))  # fmt: skip

    check(target, problem.expected, HERE.tolerance)


HOPPER = pytest.mark.skipif(not CUDA or torch.cuda.get_device_capability()[0] != 9, reason="needs a Hopper device")
TILINGS = [(64, 128, 1, 1, 4), (64, 64, 1, 3, 2), (32, 128, 2, 1, 3), (32, 64, 2, 2, 2), (16, 128, 4, 1, 2), (128, 64, 1, 1, 6)]


@pytest.mark.gpu
@HOPPER
@pytest.mark.parametrize("around", ["", "bias swiglu", "bias residual", "wide"])
@pytest.mark.parametrize("rows", [1, 8, 13, 31, 64])
@pytest.mark.parametrize("tiling", TILINGS, ids=str)
def test_skinny_at_any_tiling(tiling: tuple[int, ...], rows: int, around: str) -> None:
    from octavo_kernels.skinny import Tiling, skinny

    for _ in range(2):  # the second finds what the first left in the workspace
        problem = make(HERE, Case("", rows, 1000, 1096, around))
        wide = torch.float32 if "wide" in around else HERE.dtype
        target = torch.full((rows, 1000), torch.nan, dtype=wide, device=HERE.device)
        target = target if problem.residual is None else problem.residual

        skinny(problem.x, problem.weight, problem.bias, "swiglu" in around, problem.residual, target, Tiling(*tiling))

        check(target, problem.expected, HERE.tolerance)


@pytest.mark.gpu
@HOPPER
@pytest.mark.parametrize("rows", [1, 8, 64])
def test_a_chain_in_a_graph_is_what_it_is_alone(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that start before their predecessor ends read nothing too early and leave nothing for a replay to stumble on."""
    linear, hidden, ffn = for_device(HERE.device).linear, 2048, 4096
    weights = [
        [HERE.put(torch.randn(shape) / shape[1] ** 0.5) for shape in ((2 * ffn, hidden), (hidden, ffn), (hidden, hidden))]
        for _ in range(6)
    ]
    norm = HERE.put(torch.ones(hidden))

    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # its kernels would come between

    def step(residual: torch.Tensor, after: Callable[[], None]) -> None:
        for gate_up, down, out in weights:
            fed = linear(residual, gate_up, norm=norm, eps=1e-5, swiglu=True)
            after()
            linear(fed, down, residual=residual)
            after()
            linear(linear(residual, out, norm=norm, eps=1e-5), out, residual=residual)
            after()

    start = HERE.put(torch.randn(rows, hidden))
    alone, chained = start.clone(), start.clone()
    step(alone, torch.cuda.synchronize)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(chained, lambda: None)
    for _ in range(20):
        chained.copy_(start)
        graph.replay()
        assert torch.equal(chained, alone)
