"""The profile of a step: steps and layers are found in a list of kernels, and costs add up."""

import pytest

from octavo.bench.profile import STEPS, Kernel, Weights, lines_of

LAYER = [("gemv", 4), ("rope", 1), ("paged_decode", 2), ("gemv", 2), ("gemv", 8), ("gemv", 4)]
STEP = [("embed", 1), *LAYER, *LAYER, *LAYER, ("gemv", 20), ("argmax", 3)]
WEIGHTS = Weights({"qkv": 4e3, "out": 2e3, "gate and up": 8e3, "down": 4e3}, 1e3, 40e3)


def kernels(steps: int) -> list[Kernel]:
    made, now = [], 0.0
    for name, cost in [("prefill", 50), ("gemm", 70)] + STEP * steps:
        now += cost
        made.append(Kernel(name, now))
    return made


@pytest.mark.parametrize("steps", [STEPS - 1, STEPS + 4])
def test_a_step(steps: int) -> None:
    lines = lines_of(kernels(steps), 3, WEIGHTS)
    assert [(line.part, line.times, line.microseconds) for line in lines] == [
        ("before the layers", 1, 1), ("qkv", 3, 4), ("layer", 3, 1), ("attention", 3, 2), ("out", 3, 2), ("gate and up", 3, 8),
        ("down", 3, 4), ("head", 1, 20), ("after the layers", 1, 3),
    ]  # fmt: skip
    assert [line.gb_s for line in lines] == [None, 1, None, 0.5, 1, 1, 1, 2, None]
    assert sum(line.times * line.microseconds for line in lines) == sum(cost for _, cost in STEP)


def test_kernels_without_order() -> None:
    with pytest.raises(RuntimeError, match="do not recur"):
        lines_of([Kernel(str(at), at) for at in range(100)], 3, WEIGHTS)
