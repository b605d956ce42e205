"""rope_cache against its definition in float64: the queries it returns and every element of the cache it may write."""

from typing import NamedTuple

import torch


class Case(NamedTuple):
    name: str
    tokens: int
    heads: int
    kv_heads: int
    head_dim: int
    rot: int
    page_size: int
    norm: bool


CASES = [
    Case("smollm2", 3, 9, 3, 64, 64, 16, False),
    Case("qk-norm", 2, 4, 2, 128, 128, 64, True),
    Case("partial-rotation", 4, 2, 1, 80, 32, 32, True),
]
GPU_CASES = [
    Case("8b-prefill", 4096, 32, 8, 128, 128, 64, False),
    Case("qwen3-prefill", 1000, 16, 8, 128, 128, 64, True),
    Case("wide-head", 65, 16, 1, 256, 256, 128, False),
]


def _expected(case: Case, qkv, angles, norms):
    heads = qkv.double().view(case.tokens, -1, case.head_dim)
    turning, values = heads.split((case.heads + case.kv_heads, case.kv_heads), dim=1)
    if case.norm:
        weights = torch.cat([norms[0].double().expand(case.heads, -1), norms[1].double().expand(case.kv_heads, -1)])
        turning = turning / (turning.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weights
    cos, sin = angles.double()[:, None].chunk(2, dim=-1)
    left, right, rest = turning.split((case.rot // 2, case.rot // 2, case.head_dim - case.rot), dim=-1)
    turned = torch.cat([left * cos - right * sin, right * cos + left * sin, rest], dim=-1)
    return *turned.split((case.heads, case.kv_heads), dim=1), values


def test_rope_cache(place, case: Case) -> None:
    qkv = place.put(torch.randn(case.tokens, (case.heads + 2 * case.kv_heads) * case.head_dim))
    norms = [place.put(torch.randn(case.head_dim)) for _ in range(2)] if case.norm else [None, None]
    positions = torch.randint(5000, (case.tokens,)).to(place.device)
    cos_sin = torch.randn(5000, case.rot).to(place.device)
    num_pages = case.tokens // case.page_size + 2
    slots = torch.randperm(num_pages * case.page_size)[: case.tokens].to(place.device)
    slots[case.tokens // 2] = -1
    pool = place.put(torch.full((num_pages, 3, 2, case.kv_heads, case.page_size, case.head_dim), 7.0))
    q, keys, values = _expected(case, qkv, cos_sin[positions], norms)
    kept = slots >= 0
    expected = pool.double()
    at = slots[kept] // case.page_size, 1, slice(None), slice(None), slots[kept] % case.page_size
    expected[at] = torch.stack([keys, values], dim=1)[kept]

    out = place.kernels.rope_cache(qkv, positions, cos_sin, slots, pool[:, 1], case.heads, case.kv_heads, *norms, 1e-6)

    assert out.dtype == place.dtype
    assert ((out - q).norm(dim=-1) <= place.tolerance * q.norm(dim=-1)).all()
    assert ((pool - expected).norm(dim=-1) <= place.tolerance * expected.norm(dim=-1)).all()
    assert (pool[:, 1] != 7).any(-1).sum() == 2 * case.kv_heads * kept.sum()
