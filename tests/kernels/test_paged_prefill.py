"""paged_prefill against causal attention in float64 over caches whose every unused element is NaN (for the CPU: large)."""

from typing import NamedTuple

import pytest
import torch

from octavo_kernels import hopper, most_group
from octavo_kernels.paged_prefill_hopper import fits_hopper


class Case(NamedTuple):
    name: str
    chunks: list[tuple[int, int]]
    """(queries, context with them) of each row"""
    heads: int
    kv_heads: int
    head_dim: int
    page_size: int
    layers: int = 2
    spare_pages: int = 2


CASES = [
    Case("smollm2", [(20, 20), (1, 33), (0, 16), (5, 70)], 9, 3, 64, 16),
    Case("tile-edges", [(64, 64), (1, 64), (33, 65), (5, 67)], 2, 1, 32, 64),
    Case("one-query", [(1, 1)], 4, 2, 64, 16),
    Case("wide-group", [(3, 40)], 16, 1, 96, 32),
    Case("most-heads-a-group-float32", [(3, 40), (1, 5)], 32, 1, 64, 16),
    Case("most-heads-a-group", [(3, 40), (1, 5)], 64, 1, 64, 16),
    Case("head-80-page-128", [(40, 150)], 3, 3, 80, 128),
    Case("head-256", [(9, 33)], 2, 1, 256, 16),
    Case("page-64", [(70, 70), (3, 140)], 4, 2, 64, 64),
]
GPU_CASES = [
    Case("8b-prompt", [(4096, 4096)], 32, 8, 128, 64),
    Case("8b-mixed", [(700, 700), (2, 9000), (1, 1), (0, 64), (513, 3000), (64, 64)], 32, 8, 128, 64),
    Case("8b-chunk-at-100k", [(512, 100_000)], 32, 8, 128, 64),
    Case("8b-few-queries", [(16, 5000)], 32, 8, 128, 64),
    Case("few-queries-of-rows", [(3, 700), (17, 3001), (1, 100), (5, 5), (0, 64)], 8, 2, 64, 64),
    Case("many-rows", [(1 + row % 7, 1 + row % 7 + row * 37 % 200) for row in range(300)], 16, 4, 128, 64),
    Case("tiles-of-128", [(127, 127), (128, 128), (129, 129), (1, 128), (1, 129), (40, 168), (64, 256)], 8, 2, 128, 64),
    Case("one-head-a-group", [(300, 700), (1, 65)], 4, 4, 64, 64),
    Case("most-heads-a-group-page-64", [(300, 700), (3, 70), (0, 64)], 128, 2, 128, 64),
    Case("most-heads-a-group-narrow", [(1100, 1500), (3, 70)], 64, 1, 64, 64),
    Case("one-group", [(9, 33), (20, 600)], 16, 1, 128, 64),
    Case("qwen2", [(1000, 1000), (77, 1077)], 14, 2, 64, 64),
    Case("1b-prompts", [*[(128, 128)] * 9, (0, 64), (65, 65)], 32, 8, 64, 64),
    Case("1b-chunk", [(1500, 9000), (3, 70)], 32, 8, 64, 64),
    Case("phi", [(500, 900)], 32, 32, 96, 64),
    Case("gemma", [(700, 1000)], 16, 8, 256, 16),
    # Parts of their keys, merged; beside rows without a query, as in graphs.
    *(Case(f"{n}-of-8192", [(n, 8192), *[(0, 0)] * 15], 32, 8, 128, 64) for n in (64, 300, 512)),
    Case("few-of-8192-narrow", [(64, 8192), *[(0, 0)] * 15], 32, 8, 64, 64),
    Case("mixed-parts", [(700, 700), (2, 9000), (1, 1), (0, 64), (513, 3000), (64, 64)], 32, 8, 128, 64),
    Case("past-2-billion-elements", [(200, 200), (100, 150)], 32, 8, 128, 64, layers=32, spare_pages=600),
]


def _attend(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
    """Causal attention of the last queries q [N, H, D] to keys and values [KV, M, D], in float64, a head at a time."""
    queries, length, group = q.shape[0], keys.shape[1], q.shape[1] // keys.shape[0]
    seen = torch.ones(queries, length, dtype=torch.bool, device=q.device).tril(length - queries)
    heads = []
    for head in range(q.shape[1]):
        scores = q[:, head].double() @ keys[head // group].double().T * scale
        heads.append(scores.masked_fill(~seen, -torch.inf).softmax(-1) @ values[head // group].double())
    return torch.stack(heads, dim=1)


def test_paged_prefill(place, case: Case, fill_cache) -> None:
    if case.heads // case.kv_heads > most_group(place.dtype):
        pytest.skip("so many heads may not share a KV head in this dtype")
    kv, table, rows = fill_cache(place, case, [length for _, length in case.chunks])
    queries = [count for count, _ in case.chunks]
    starts = torch.tensor([0, *queries]).cumsum(0).int().to(place.device)
    lengths = torch.tensor([length for _, length in case.chunks], dtype=torch.int32, device=place.device)
    packed = place.put(torch.randn(sum(queries), case.heads + 1, case.head_dim))
    q = packed.view(sum(queries), -1)[:, : case.heads * case.head_dim].view(sum(queries), case.heads, case.head_dim)

    plan = place.kernels.plan_prefill(starts, lengths, sum(queries), case.heads, case.kv_heads, case.head_dim)
    out = place.kernels.paged_prefill(q, kv, table, starts, lengths, max(queries), 0.3, plan)
    longer = torch.full((sum(queries) + 1, *q.shape[1:]), torch.nan, dtype=q.dtype, device=q.device)
    place.kernels.paged_prefill(q, kv, table, starts, lengths, max(queries), 0.3, plan, out=longer[1:])

    assert out.dtype == place.dtype
    assert torch.equal(longer[1:], out) and longer[0].isnan().all()
    for query, (keys, values), answer in zip(q.split(queries), rows, out.split(queries), strict=True):
        if query.shape[0]:
            expected = _attend(query, keys, values, 0.3)
            assert ((answer - expected).norm(dim=-1) <= place.tolerance * expected.norm(dim=-1)).all()


def test_queries_that_offsets_of_32_bits_do_not_reach_are_left_to_the_portable_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hopper, "is_hopper", lambda device: True)
    kv = torch.empty(1, 2, 8, 64, 128, dtype=torch.bfloat16, device="meta")
    packed = torch.empty(2**18 + 1, 2**13, dtype=torch.bfloat16, device="meta")
    q = packed[:, : 32 * 128].view(-1, 32, 128)
    assert fits_hopper(q[1:], kv) and not fits_hopper(q, kv)
