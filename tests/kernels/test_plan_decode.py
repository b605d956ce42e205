"""plan_decode: every tile of every unit is somebody's, once, and nobody has more than an equal share."""

import pytest
import torch

from octavo_kernels import for_device

CUDA = torch.cuda.is_available()
DEVICES = [
    pytest.param("cpu", id="interpreter", marks=pytest.mark.skipif(CUDA, reason="with a CUDA device Triton compiles")),
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not CUDA, reason="needs a CUDA device")]),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "lengths",
    [
        [],
        [0],
        [1],
        [64],
        [65, 0],
        [0, 0, 5, 0, 200],
        [4000, 1, 1],
        [100_000],
        [131_072, *[512] * 63],
        list(range(0, 1024, 3)),
        [64] * 1024,
        [*[100] * 1500, 5000, *[1] * 1000],
    ],
    ids=lambda lengths: f"{len(lengths)}-rows-of-{max(lengths, default=0)}",
)
def test_every_tile_is_planned_once(lengths: list[int], device: str) -> None:
    kv_heads = 3
    plan = for_device(torch.device("cuda")).plan_decode(torch.tensor(lengths, dtype=torch.int32, device=device), kv_heads)
    tiles = [max(1, -(-length // 64)) for length in lengths]
    expected = [
        (row * kv_heads + head, tile) for row, count in enumerate(tiles) for head in range(kv_heads) for tile in range(count)
    ]
    where = {place: position for position, place in enumerate(expected)}
    planned = 0
    for unit, tile, left, share, own_tiles, length in plan.tasks[:, :6].tolist():
        assert left <= share <= max(3, -(-len(expected) // len(plan.tasks)))
        if left:
            assert where[unit, tile] == planned
            assert (own_tiles, length) == (tiles[unit // kv_heads], lengths[unit // kv_heads])
            planned += left
    assert planned == len(expected)
    assert plan.arrivals.tolist() == [0] * (len(lengths) * kv_heads)


def test_the_twin_attends_to_rows_apart_when_padding_would_cost_more() -> None:
    kernels = for_device(torch.device("cpu"))
    assert kernels.plan_decode(torch.tensor([100, 90], dtype=torch.int32), 1).apart == ()
    assert [plan.longest for plan in kernels.plan_decode(torch.tensor([1000, 10], dtype=torch.int32), 1).apart] == [1000, 10]
