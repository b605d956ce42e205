"""paged_decode against attention in float64 over caches whose every unused element is NaN (for the CPU: large)."""

from typing import NamedTuple

import pytest
import torch

from octavo_kernels import for_device


class Case(NamedTuple):
    name: str
    lengths: list[int]
    heads: int
    kv_heads: int
    head_dim: int
    page_size: int
    table_width: int = 0
    layers: int = 2
    spare_pages: int = 2


CASES = [
    Case("smollm2", [1, 16, 0, 17, 70], 9, 3, 64, 16),
    Case("alone", [40], 4, 4, 64, 16),
    Case("tile-edges", [63, 64, 65, 128], 8, 2, 32, 64),
    Case("splits", [0, 900, 256, 1], 2, 1, 64, 64, table_width=16),
    Case("mixed-lengths", [600, 3, 3, 0], 2, 1, 64, 32),
    Case("wide-group", [33, 2], 16, 1, 96, 32),
    Case("head-80-page-128", [129, 100], 5, 1, 80, 128),
    Case("head-256", [50], 2, 1, 256, 16),
]
GPU_CASES = [
    Case("8b-batch", [512 + 7 * row for row in range(64)], 32, 8, 128, 64),
    Case("8b-100k", [100_000], 32, 8, 128, 64),
    Case("skewed", [32_768, *[500] * 63], 32, 8, 128, 64),
    Case("padded-graph", [300, 0, 0, 0], 32, 8, 128, 64, table_width=2048),
    Case("qwen2", [1000, 2000, 3000], 14, 2, 64, 64),
    Case("phi", [4097, 5], 32, 32, 96, 64),
    Case("gemma", [3000, 17], 16, 8, 256, 64),
    *(Case(f"group-{group}", [700, 64, 0, 65, 1], 2 * group, 2, 128, 64) for group in (1, 2, 5, 8, 16)),
    *(
        Case(f"head-{dim}", [1000, 129, 128], 8, 2, dim, page)
        for dim, page in ((64, 128), (80, 64), (96, 64), (128, 128), (256, 64))
    ),
    Case("a-row-for-every-program", [64] * 1024, 32, 8, 128, 64),
    Case("short-rows", [1 + 7 * row % 193 for row in range(1000)] + [0] * 24, 32, 8, 64, 64),
    Case("past-2-billion-elements", [200, 100], 32, 8, 128, 64, layers=32, spare_pages=600),
]


def _attend(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
    """Attention of q [H, D] to all of keys and values [KV, N, D], in float64."""
    group = q.shape[0] // keys.shape[0]
    scores = torch.einsum("kgd,knd->kgn", q.double().view(-1, group, q.shape[1]), keys.double()) * scale
    return torch.einsum("kgn,knd->kgd", scores.softmax(-1), values.double()).view(q.shape)


def test_paged_decode(place, case: Case, fill_cache) -> None:
    kv, table, rows = fill_cache(place, case, case.lengths, case.table_width)
    lengths = torch.tensor(case.lengths, dtype=torch.int32, device=place.device)
    packed = place.put(torch.randn(len(rows), case.heads + 1, case.head_dim))
    q = packed.view(len(rows), -1)[:, : case.heads * case.head_dim].view(len(rows), case.heads, case.head_dim)  # a view, as of qkv

    plan = place.kernels.plan_decode(lengths, case.kv_heads)
    out = place.kernels.paged_decode(q, kv, table, lengths, 0.3, plan)
    longer = torch.full((len(rows) + 1, *q.shape[1:]), torch.nan, dtype=q.dtype, device=q.device)
    place.kernels.paged_decode(q, kv, table, lengths, 0.3, plan, out=longer[:-1])

    assert out.dtype == place.dtype
    assert torch.equal(longer[:-1], out) and longer[-1].isnan().all()
    for query, (keys, values), answer in zip(q, rows, out, strict=True):
        if keys.shape[1]:
            expected = _attend(query, keys, values, 0.3)
            assert ((answer - expected).norm(dim=-1) <= place.tolerance * expected.norm(dim=-1)).all()
        else:
            assert (answer == 0).all()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_rows(device: str) -> None:
    kv = torch.zeros(1, 2, 1, 16, 64)
    lengths = torch.zeros(0, dtype=torch.int32)
    kernels = for_device(torch.device(device))
    plan = kernels.plan_decode(lengths, 1)
    out = kernels.paged_decode(kv.new_zeros(0, 2, 64), kv, lengths.view(0, 1), lengths, 1.0, plan)
    assert out.shape == (0, 2, 64)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_step_follows_its_lengths() -> None:
    """One graph of a plan and two layers, replayed over other lengths each time; its padded rows hold NaN."""
    kernels, cuda, heads, kv_heads, rows, most = for_device(torch.device("cuda")), {"device": "cuda"}, 8, 2, 6, 3000
    pages = -(-most // 64)
    pool = torch.randn(rows * pages, 2, 2, kv_heads, 64, 128, **cuda).bfloat16()
    table = torch.randperm(rows * pages, **cuda).int().view(rows, pages)
    q = torch.randn(2, rows, heads, 128, **cuda).bfloat16()
    lengths = torch.full((rows,), most, dtype=torch.int32, device="cuda")

    def step() -> torch.Tensor:
        plan = kernels.plan_decode(lengths, kv_heads)
        return torch.stack([kernels.paged_decode(q[layer], pool[:, layer], table, lengths, 0.1, plan) for layer in (0, 1)])

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    for known in ([most] * rows, [1, 64, 65, 2999, 0, 0], [3000, 1, 1, 1, 0, 0], [0] * rows, [17, 1700, 640, 639, 641, 0]):
        lengths.copy_(torch.tensor(known))
        q.copy_(torch.randn_like(q))
        q[:, lengths == 0] = torch.nan
        graph.replay()
        torch.cuda.synchronize()
        for row, length in enumerate(known):
            for layer in (0, 1):
                keys, values = pool[table[row].long(), layer].permute(1, 2, 0, 3, 4).flatten(2, 3)[:, :, :length]
                answer = out[layer, row]
                if length:
                    expected = _attend(q[layer, row], keys, values, 0.1)
                    assert ((answer - expected).norm(dim=-1) <= 1e-2 * expected.norm(dim=-1)).all()
                else:
                    assert (answer == 0).all()
