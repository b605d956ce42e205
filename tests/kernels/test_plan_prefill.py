"""plan_prefill: every tile of keys of every unit is somebody's, once, in parts that agree; the grid holds them all."""

import pytest
import torch

from octavo_kernels import hopper
from octavo_kernels.plan_prefill import MOST_PARTS, ROWS, plan_units

NONE = [(0, 0)] * 15
CHUNKS = [
    [(64, 8192), *NONE],
    [(300, 8192), *NONE],
    [(512, 32_768), *NONE],
    [(16, 32_768), *NONE],
    [(64, 4096)] * 4,
    [(1024, 1024)],
    [(700, 700), (2, 9000), (1, 1), (0, 64), (513, 3000), (64, 64)],
    [(1 + 2 * row, 50 + 577 * row) for row in range(16)],
    [(0, 0), (0, 5)],
    [(128, 128)] * 20,
    [(1, 1)],
]
CUDA = torch.cuda.is_available()
DEVICES = [
    pytest.param("cpu", id="interpreter", marks=pytest.mark.skipif(CUDA, reason="with a CUDA device Triton compiles")),
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not CUDA, reason="needs a CUDA device")]),
]
pytestmark = pytest.mark.parametrize("device", DEVICES)


@pytest.mark.parametrize(("groups", "tile"), [(2, 128), (1, 64)])
@pytest.mark.parametrize("processors", [3, 132])
@pytest.mark.parametrize(("heads", "kv_heads"), [(32, 8), (14, 2), (4, 4)])
@pytest.mark.parametrize("chunks", CHUNKS, ids=lambda chunks: f"{len(chunks)}-rows-{chunks[0][0]}-of-{chunks[0][1]}")
def test_every_tile_of_keys_is_planned_once(
    chunks: list[tuple[int, int]], heads: int, kv_heads: int, processors: int, groups: int, tile: int, device: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(hopper, "multiprocessors", lambda device: processors)
    counts = [count for count, _ in chunks]
    starts = torch.tensor([0, *counts]).cumsum(0).int().to(device)
    lengths = torch.tensor([length for _, length in chunks], dtype=torch.int32, device=device)
    plan = plan_units(starts, lengths, sum(counts), heads, kv_heads, groups, tile)
    assert not plan.arrivals.any()
    block, taken = groups * ROWS // (heads // kv_heads), {}
    for program, task in enumerate(plan.tasks[:, :10].tolist()):
        row, head, begin, queries, length, first_query, first, take, parts, slot = task
        if not take:
            continue
        assert (begin, queries, length) == (starts[row], *chunks[row])
        assert parts == 1 or (plan.split and parts <= MOST_PARTS)
        place, rest = divmod(program - slot, kv_heads)
        assert rest == 0 and 0 <= place < parts
        taken.setdefault((row, head, first_query), {})[place] = (first, take, parts, slot)
    for row, (count, length) in enumerate(chunks):
        for first_query in range(0, count, block):
            for head in range(kv_heads):
                unit = taken.pop((row, head, first_query))
                assert sorted(unit) == list(range(unit[0][2]))
                assert {part[2:] for part in unit.values()} == {unit[0][2:]}
                at = 0
                for place in sorted(unit):
                    assert unit[place][0] == at
                    at += unit[place][1]
                assert at == -(-min(length - count + first_query + block, length) // tile)
    assert not taken


def test_few_queries_behind_a_long_context_take_the_whole_device(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hopper, "multiprocessors", lambda device: 132)
    starts, lengths = (torch.tensor(values, dtype=torch.int32, device=device) for values in ([0, 64], [32_768]))
    plan = plan_units(starts, lengths, 64, 32, 8, 2, 128)
    assert plan.split and (plan.tasks[:, 7] > 0).sum() > 100
