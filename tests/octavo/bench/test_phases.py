"""The list of phases: names, custom ones, and what is neither."""

import pytest

from octavo.bench.phases import NAMED, Phase, parse_phases


def test_names_and_custom_ones_keep_their_order() -> None:
    plan = parse_phases("itl, b8,128/32/4,start,b1")
    assert plan.phases == [NAMED["b8"], Phase("128/32/4", 4, 128, 32), NAMED["b1"]]
    assert plan.itl


def test_start_alone() -> None:
    assert parse_phases("start") == ([], False)


@pytest.mark.parametrize("text", ["b2", "1/2", "0/1/1", "1/2/3/4", "-1/2/3", "a/b/c"])
def test_what_is_no_phase(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' is no phase; known are start, b1, "):
        parse_phases(text)
