"""The invariant kernels: bit for bit the same row alone, in any batch, at any place in it and in any chunks; and right."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch

from octavo_kernels import Kernels, for_device

HAS_CUDA = torch.cuda.is_available()
GPU = [pytest.mark.gpu, pytest.mark.skipif(not HAS_CUDA, reason="needs a CUDA device")]
INTERPRETER = pytest.mark.skipif(HAS_CUDA, reason="with a CUDA device Triton compiles")
TOLERANCE = {torch.float32: 5e-5, torch.float16: 3e-3, torch.bfloat16: 1e-2}


class Place(NamedTuple):
    kernels: Kernels
    plain: Kernels
    device: torch.device
    dtype: torch.dtype

    def draw(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape).to(self.device, self.dtype)


def places() -> list:
    made = []
    for kind, kernels, device, dtypes, marks in [
        ("twin", "cpu", "cpu", (torch.float32, torch.bfloat16), []),
        ("interpreter", "cuda", "cpu", (torch.float32, torch.float16), [INTERPRETER]),
        ("cuda", "cuda", "cuda", tuple(TOLERANCE), GPU),
    ]:
        sets = for_device(torch.device(kernels), invariant=True), for_device(torch.device(kernels))
        for dtype in dtypes:
            name = f"{kind}-{str(dtype).removeprefix('torch.')}"
            made.append(pytest.param(Place(*sets, torch.device(device), dtype), marks=marks, id=name))
    return made


pytestmark = pytest.mark.parametrize("place", places())


@pytest.fixture(autouse=True)
def sums_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter multiplies by numpy, which sums an element by its place in the matrix; a device's matrix units do not."""

    def matmul(left: np.ndarray, right: np.ndarray, dtype: np.dtype) -> np.ndarray:
        total = np.zeros((left.shape[0], right.shape[1]), dtype)
        for column, row in zip(left.T.astype(dtype), right.astype(dtype), strict=True):
            total += column[:, None] * row
        return total

    if not HAS_CUDA:
        monkeypatch.setattr(np, "matmul", matmul)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one, other) and not one.isnan().any()


SHAPES = {  # features, width, what is around
    "normed": (96, 160, "norm bias"),
    "activated": (40, 64, "norm swiglu bias"),
    "odd": (37, 100, "residual bias"),
    "wide": (131, 72, "norm wide"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_of_a_projection_is_the_same_in_any_batch(place: Place, shape: str) -> None:
    features, width, around = SHAPES[shape]
    rows, swiglu = 70, "swiglu" in around
    x, residual = place.draw(rows, width), place.draw(rows, features)
    weight = place.draw(features * (2 if swiglu else 1), width) / width**0.5
    bias = place.draw(len(weight)) if "bias" in around else None
    norm = place.draw(width) if "norm" in around else None

    def linear(chosen: slice) -> torch.Tensor:
        part = x[chosen]
        wide = torch.full((len(part), features), torch.nan, device=place.device) if "wide" in around else None
        into = residual[chosen].clone() if "residual" in around else None
        return place.kernels.linear(part, weight, bias, norm=norm, eps=1e-5, swiglu=swiglu, residual=into, out=wide)

    together = linear(slice(0, rows))
    plain = place.plain.linear(
        x, weight, bias, norm=norm, eps=1e-5, swiglu=swiglu,
        residual=residual.clone() if "residual" in around else None,
        out=torch.empty_like(together) if "wide" in around else None,
    )  # fmt: skip
    error = (together - plain).double().norm(dim=-1) / plain.double().norm(dim=-1)
    assert error.max() <= 2 * TOLERANCE[place.dtype]
    for begin, count in [(0, 1), (69, 1), (17, 7), (2, 64), (3, 66)]:
        assert same(linear(slice(begin, begin + count)), together[begin : begin + count])
    assert linear(slice(0, 0)).shape == (0, features)


class Heads(NamedTuple):
    heads: int
    kv_heads: int
    head_dim: int
    page_size: int


HEADS = [Heads(2, 2, 32, 16), Heads(6, 2, 40, 64), Heads(16, 1, 64, 128)]
LENGTHS = 80, 1, 64, 70


@pytest.mark.parametrize("model", HEADS, ids=str)
def test_a_query_attends_the_same_in_any_chunk_and_any_batch(place: Place, model: Heads) -> None:
    heads, kv_heads, head_dim, page = model
    pages = [-(-length // page) for length in LENGTHS]
    table = torch.zeros(len(LENGTHS), 12, dtype=torch.int32)
    free = torch.randperm(sum(pages)).tolist()
    for row, count in enumerate(pages):
        table[row, :count] = torch.tensor([free.pop() for _ in range(count)])
    table = table.to(place.device)
    kv = place.draw(sum(pages), 2, 2, kv_heads, page, head_dim)[:, 1]
    q = [place.draw(length, heads, head_dim) for length in LENGTHS]

    def attend(pieces: Sequence[tuple[int, int, int]], kernels: Kernels) -> list[torch.Tensor]:
        """Of (row, first query, how many), in one call."""
        rows, counts = [row for row, _, _ in pieces], [count for _, _, count in pieces]
        lengths = torch.tensor([begin + count for _, begin, count in pieces], dtype=torch.int32, device=place.device)
        queries = torch.cat([q[row][begin : begin + count] for row, begin, count in pieces])
        if set(counts) == {1}:
            plan = kernels.plan_decode(lengths, kv_heads)
            out = kernels.paged_decode(queries, kv, table[rows], lengths, 0.2, plan)
        else:
            starts = torch.tensor([0, *counts], device=place.device).cumsum(0).int()
            plan = kernels.plan_prefill(starts, lengths, len(queries), heads, kv_heads, head_dim)
            out = kernels.paged_prefill(queries, kv, table[rows], starts, lengths, max(counts), 0.2, plan)
        return list(out.split(counts))

    everything = [(row, 0, length) for row, length in enumerate(LENGTHS)]
    whole = attend(everything, place.kernels)
    for mine, plain in zip(whole, attend(everything, place.plain), strict=True):
        error = (mine - plain).double().norm(dim=-1) / plain.double().norm(dim=-1)
        assert error.max() <= 2 * TOLERANCE[place.dtype]
    for begin, count in [(0, 1), (0, 37), (37, 43), (63, 1), (64, 1)]:
        (part,) = attend([(0, begin, count)], place.kernels)
        assert same(part, whole[0][begin : begin + count])
    for at in (0, 63):
        parts = attend([(3, at, 1), (0, at + 16, 1), (2, at, 1)], place.kernels)
        assert same(torch.cat(parts), torch.stack([whole[3][at], whole[0][at + 16], whole[2][at]]))
    parts = attend([(2, 40, 3), (1, 0, 1), (0, 61, 19)], place.kernels)
    assert same(parts[0], whole[2][40:43])
    assert same(parts[2], whole[0][61:])


def test_a_row_without_context_gives_zeros(place: Place) -> None:
    lengths = torch.tensor([0, 3], dtype=torch.int32, device=place.device)
    kv, table = place.draw(2, 2, 2, 16, 32), torch.tensor([[0], [1]], dtype=torch.int32, device=place.device)
    out = place.kernels.paged_decode(place.draw(2, 4, 32), kv, table, lengths, 0.2, place.kernels.plan_decode(lengths, 2))
    assert same(out[0], torch.zeros_like(out[0]))
    assert out[1].abs().sum() > 0


@pytest.mark.parametrize("head_dim", [32, 40])
def test_a_token_is_rotated_the_same_in_any_batch(place: Place, head_dim: int) -> None:
    tokens, heads, kv_heads = 520 if place.device.type == "cuda" else 16, 6, 2
    qkv = place.draw(tokens, (heads + 2 * kv_heads) * head_dim)
    positions, slots = torch.randint(0, 50, (tokens,)).to(place.device), torch.randperm(640)[:tokens].to(place.device)
    angles = torch.randn(50, head_dim, device=place.device)
    q_norm, k_norm = place.draw(head_dim), place.draw(head_dim)

    def rope(chosen: slice) -> tuple[torch.Tensor, torch.Tensor]:
        kv = torch.zeros(40, 2, kv_heads, 16, head_dim, dtype=place.dtype, device=place.device)
        q = place.kernels.rope_cache(
            qkv[chosen].clone(), positions[chosen], angles, slots[chosen], kv, heads, kv_heads, q_norm, k_norm, 1e-5
        )
        return q, kv[slots[chosen] // 16, :, :, slots[chosen] % 16]

    q, keys_values = rope(slice(0, tokens))
    for begin, count in [(0, 1), (15, 1), (2, 9)]:
        chosen = slice(begin, begin + count)
        own_q, own_keys_values = rope(chosen)
        assert same(own_q, q[chosen])
        assert same(own_keys_values, keys_values[chosen])


def test_norms_and_activations_are_the_same_in_any_batch(place: Place) -> None:
    x, weight = place.draw(9, 200), place.draw(200)
    for kernel in (lambda rows: place.kernels.rmsnorm(rows, weight, 1e-5), place.kernels.swiglu):
        together = kernel(x)
        for begin, count in [(0, 1), (8, 1), (3, 5)]:
            assert same(kernel(x[begin : begin + count]), together[begin : begin + count])


def test_a_row_draws_the_same_in_any_batch(place: Place) -> None:
    if place.dtype != torch.float32:
        pytest.skip("logits are float32")
    rows, vocabulary = 10, 40_000 if place.device.type == "cuda" else 3000
    logits = torch.randn(rows, vocabulary, device=place.device) * torch.linspace(0.1, 3, rows, device=place.device)[:, None]

    def of(*values: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=place.device)

    temperature = of(0, 1, 1, 1, 0.7, 1, 1, 1.3, 1, 0)
    top_k = of(0, 0, 50, 0, 3000, 4, 0, 0, 1000, 0, dtype=torch.int32)
    top_p = of(1, 0.9, 1, 0.5, 0.99, 0.8, 1, 0.7, 1, 1)
    min_p = of(0, 0, 0, 0, 0, 0, 0.01, 0, 0, 0)
    seeds, index = torch.arange(rows, device=place.device), torch.zeros(rows, dtype=torch.int32, device=place.device)
    options = [temperature, top_k, top_p, min_p, seeds, index, seeds + 7]
    together = place.kernels.sample(logits, *options)
    assert torch.equal(together, place.plain.sample(logits, *options))
    for begin, count in [(1, 1), (3, 1), (4, 1), (5, 3), (7, 1)]:
        chosen = slice(begin, begin + count)
        assert torch.equal(place.kernels.sample(logits[chosen], *(option[chosen] for option in options)), together[chosen])
