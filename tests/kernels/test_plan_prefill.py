"""plan_prefill: every tile of keys of every unit is somebody's, once, in parts that agree; the grid holds them all."""

import pytest
import torch

from octavo_kernels import hopper
from octavo_kernels import plan_prefill as planning
from octavo_kernels.plan_prefill import MOST_PARTS, ROWS, PrefillPlan, plan_units

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


def assert_planned_once(
    chunks: list[tuple[int, int]], heads: int, kv_heads: int, groups: int, tile: int, device: str
) -> PrefillPlan:
    counts = [count for count, _ in chunks]
    starts = torch.tensor([0, *counts]).cumsum(0).int().to(device)
    lengths = torch.tensor([length for _, length in chunks], dtype=torch.int32, device=device)
    plan = plan_units(starts, lengths, sum(counts), heads, kv_heads, groups, tile)
    assert not plan.arrivals.any()
    block, taken = groups * ROWS // (heads // kv_heads), {}
    for program, task in enumerate(plan.tasks[:, :10].tolist()):
        row, head, begin, queries, length, first_query, first, take, parts, first_program = task
        if not take:
            continue
        assert (begin, queries, length) == (starts[row], *chunks[row])
        assert parts == 1 or program < len(plan.arrivals)
        place, rest = divmod(program - first_program, kv_heads)
        assert rest == 0 and 0 <= place < parts <= MOST_PARTS
        taken.setdefault((row, head, first_query), {})[place] = (first, take, parts, first_program)
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
    return plan


@pytest.mark.parametrize("processors", [3, 132])
@pytest.mark.parametrize(("heads", "kv_heads", "groups", "tile"), [(32, 8, 2, 128), (32, 8, 1, 64), (14, 2, 1, 64), (4, 4, 2, 128)])
@pytest.mark.parametrize("chunks", CHUNKS, ids=lambda chunks: f"{len(chunks)}-rows-{chunks[0][0]}-of-{chunks[0][1]}")
def test_every_tile_of_keys_is_planned_once(
    chunks: list[tuple[int, int]], heads: int, kv_heads: int, processors: int, groups: int, tile: int, device: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(hopper, "multiprocessors", lambda device: processors)
    assert_planned_once(chunks, heads, kv_heads, groups, tile, device)


def test_rows_are_planned_block_by_block(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_BLOCK_R", 16)
    chunks = [(row % 4 * 40, 200 + 997 * row % 1400) for row in range(51)]
    assert_planned_once([*chunks, (30, 9000)], 4, 4, 2, 128, device)


def test_what_waits_to_be_merged_grows_with_the_device_and_not_with_the_rows(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hopper, "multiprocessors", lambda device: 60)
    plan = assert_planned_once([(1, 9000), *[(1, 1)] * 99, (1, 5000), *[(0, 0)] * 60], 4, 4, 2, 128, device)
    assert len(plan.tasks) > 400 and 0 < len(plan.arrivals) <= 4 * 60
    assert (plan.tasks[:, 8] > 1).any()


def test_few_queries_behind_a_long_context_take_the_whole_device(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hopper, "multiprocessors", lambda device: 132)
    starts, lengths = (torch.tensor(values, dtype=torch.int32, device=device) for values in ([0, 64], [32_768]))
    plan = plan_units(starts, lengths, 64, 32, 8, 2, 128)
    assert (plan.tasks[:, 7] > 0).sum() > 100
