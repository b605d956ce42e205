"""A step with decodes and a chunk stays within its target, whatever its tokens cost."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from octavo.engine.pacing import GROWTH, LEAST, ChunkPacer

TARGET = 9e-3


def run(pacer: ChunkPacer, cost: Callable[[int], float], steps: int) -> list[tuple[int, float]]:
    made = []
    for _ in range(steps):
        chunk = pacer.limit
        seconds = cost(chunk)
        pacer.took(seconds, 32, chunk)
        made.append((chunk, seconds))
    return made


def settled(alone: float) -> ChunkPacer:
    pacer = ChunkPacer(TARGET)
    for _ in range(20):
        pacer.took(alone, 32, 0)
    return pacer


@pytest.mark.parametrize("flat", [0, 200, 400])
def test_chunks_grow_to_the_target_and_not_beyond(flat: int) -> None:
    """Up to ``flat`` tokens ride along; from there on each costs."""
    made = run(settled(4.5e-3), lambda chunk: 4.6e-3 + max(0, chunk - flat) * 16e-6, 60)
    assert all(seconds <= 1.1 * TARGET for _, seconds in made)
    assert all(after <= before * GROWTH + 1 for (before, _), (after, _) in pairwise(made))
    assert all(0.75 * TARGET <= seconds <= 1.1 * TARGET for _, seconds in made[30:])


def test_dearer_tokens_make_smaller_chunks() -> None:
    pacer = settled(4.5e-3)
    before = run(pacer, lambda chunk: 4.5e-3 + chunk * 10e-6, 40)[-1][0]
    after = run(pacer, lambda chunk: 4.5e-3 + chunk * 30e-6, 40)[-1]
    assert after[0] < before / 2
    assert after[1] <= 1.1 * TARGET


def test_a_prompt_gets_on_where_decodes_alone_are_slower_than_the_target() -> None:
    pacer = settled(12e-3)
    assert {chunk for chunk, _ in run(pacer, lambda chunk: 12e-3 + chunk * 1e-5, 20)} == {LEAST}


def test_before_anything_is_known_chunks_are_small() -> None:
    assert ChunkPacer(TARGET).limit == LEAST
