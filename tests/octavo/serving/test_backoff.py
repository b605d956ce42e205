"""Delays double, deaths of long ago are forgotten, and there is an end."""

from octavo.serving.backoff import MAX_DEATHS, WINDOW, Backoff


def test_delays_double_until_it_gives_up() -> None:
    backoff = Backoff()
    delays = [backoff.died(float(second)) for second in range(MAX_DEATHS)]
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, None]


def test_a_death_now_and_then_costs_the_first_delay() -> None:
    backoff = Backoff()
    assert [backoff.died(number * (WINDOW + 1)) for number in range(20)] == [0.5] * 20
