"""The bench of the front end: its clock without clocks, and one server before its source of tokens."""

from pathlib import Path

import pytest

from octavo.bench.frontend import Figures, ages, flood, lateness
from octavo.bench.hosted import octavo
from octavo.bench.lanes import Door
from octavo.config import EngineConfig, WeightsFormat


def test_a_token_is_as_late_as_it_comes_after_its_multiple_of_the_period() -> None:
    assert lateness([10.25, 10.5, 11.125], 0.25) == [0.0, 0.0, 0.375]
    assert lateness([10.375, 10.51, 10.76], 0.25) == pytest.approx([0.125, 0.01, 0.01])


def test_tokens_that_come_together_have_waited_for_one_another() -> None:
    assert lateness([1.0, 1.0, 1.0], 0.25) == [0.5, 0.25, 0.0]


def test_the_median_of_ratios_counts_and_not_the_ratio_of_medians() -> None:
    figures = Figures()
    for ours, peer in ((1.0, 10.0), (2.0, 1.0), (6.0, 2.0)):
        figures.note("rate", "1/s", "", ours, peer)
    (row,) = figures.rows()
    assert (row.value, row.peer, row.ratio) == (2.0, 2.0, 2.0)


def test_without_a_peer_there_is_no_ratio() -> None:
    figures = Figures()
    figures.note("rate", "1/s", "", 1.0, None)
    (row,) = figures.rows()
    assert (row.value, row.peer, row.ratio) == (1.0, None, None)


def test_a_server_before_a_source_of_tokens_is_measured(demo_gguf: Path) -> None:
    """The client itself raises if a text, an id or a count is not what it must be."""
    weights = str(demo_gguf)
    config = EngineConfig(name="m", version=1, weights=weights, weights_format=WeightsFormat.GGUF, tokenizer=weights)
    with octavo(config, front_ends=1) as target:
        many = flood(target, lanes=4, shared=True, seconds=1.0, rate=50)
        openai = flood(target, lanes=4, shared=False, seconds=1.0, rate=50, door=Door.OPENAI)
        late = ages(target, lanes=2, rate=400, shared=False, seconds=0.5)
    for seen in (many, openai):
        assert seen.rate * seen.tokens <= 4 * 50 * 1.5
        assert seen.rate > 0 < seen.per_message
    assert len(late) % 128 == 0 < len(late)
    assert min(late) >= 0
