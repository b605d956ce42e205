"""Which shape a step is padded to, and which steps have none."""

import numpy as np
import pytest

from octavo.engine.step import StepInput
from octavo.runtime.shapes import Shape, Shapes, padded_sizes


@pytest.mark.parametrize(
    ("max_rows", "sizes"),
    [
        (1, [1]),
        (3, [1, 2, 3]),
        (8, [1, 2, 4, 8]),
        (20, [1, 2, 4, 8, 16, 20]),
        (256, [1, 2, 4, *range(8, 257, 8)]),
        (300, [1, 2, 4, *range(8, 257, 8), 272, 288, 300]),
        (5000, [1, 2, 4, *range(8, 257, 8), *range(272, 513, 16), *range(544, 1025, 32)]),
    ],
)
def test_numbers_of_rows(max_rows: int, sizes: list[int]) -> None:
    assert padded_sizes(max_rows) == sizes


def step(decodes: int, chunks: list[int], yields: list[bool]) -> StepInput:
    lens = np.array([*[1] * decodes, *chunks], np.int64)
    samples = np.array([*[True] * decodes, *yields], np.bool_)
    rows = np.arange(len(lens))
    return StepInput([], np.zeros((0, 3), np.int32), rows, np.zeros(sum(chunks), np.int32), lens, lens + 9, decodes, samples)


@pytest.mark.parametrize(
    ("decodes", "chunks", "yields", "shape"),
    [
        (9, [], [], Shape(16)),
        (300, [], [], Shape(300)),
        (0, [1], [True], Shape(8, 16, 64)),
        (8, [64], [True], Shape(8, 16, 64)),
        (9, [64, 1], [True, True], Shape(16, 16, 128)),
        (200, [300, 212], [True, False], Shape(256, 16, 512)),
        (270, [5], [True], Shape(300, 16, 64)),
        (5, [20] * 16, [True] * 16, Shape(8, 16, 512)),
        (5, [20] * 17, [True] * 17, None),  # too many prompts
        (5, [513], [True], None),  # too many tokens
        (5, [20, 20], [False, True], None),  # a gap
        (0, [20], [False], None),  # nothing to draw
    ],
)
def test_shape_of_a_step(decodes: int, chunks: list[int], yields: list[bool], shape: Shape | None) -> None:
    shapes = Shapes(300)
    assert shapes.of(step(decodes, chunks, yields)) == shape
    assert shape is None or shape in [*shapes.decodes, *shapes.chunks]


def test_decodes_beyond_the_largest_graph_have_no_shape() -> None:
    assert Shapes(5000).of(step(1025, [], [])) is None
    assert Shapes(5000).of(step(1024, [3], [True])) == Shape(1024, 16, 64)
    assert Shapes(5000).of(step(1025, [3], [True])) is None


def test_few_rows_have_few_shapes() -> None:
    shapes = Shapes(1)
    assert shapes.decodes == [Shape(1)]
    assert shapes.of(step(0, [3], [True])) == Shape(1, 1, 64)
    assert shapes.of(step(1, [], [])) == Shape(1)
