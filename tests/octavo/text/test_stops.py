"""Stop strings against the plain definition, however the text is cut into pieces."""

import time

from hypothesis import given, seed, settings
from hypothesis import strategies as st

from octavo.text.stops import StopSet, StopWatch


def by_definition(text: str, stops: list[str], include: bool, armed_from: int) -> tuple[str, str | None]:
    """The first place where a stop is complete, the longest one there."""
    for end in range(armed_from + 1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            stop = max(complete, key=len)
            return text[: end if include else end - len(stop)], stop
    return text, None


def watched(pieces: list[str], stops: list[str], include: bool, armed_from: int) -> tuple[str, str | None]:
    watch, shown, seen = StopWatch(StopSet(tuple(stops)), include, ""), "", 0
    for piece in pieces:
        text, stop = watch.push(piece, armed=seen >= armed_from)
        shown, seen = shown + text, seen + len(piece)
        if stop is not None:
            return shown, stop
    return shown + watch.finish(), None


few = st.sampled_from("ab")


@seed(4)
@settings(max_examples=600, deadline=None)
@given(
    st.lists(st.text(few, max_size=4), max_size=8),
    st.lists(st.text(few | st.just("é"), min_size=1, max_size=5), min_size=1, max_size=4),
    st.booleans(),
    st.integers(0, 3),
)
def test_equals_the_definition_whatever_the_pieces(pieces, stops, include, unarmed):
    armed_from = sum(map(len, pieces[:unarmed]))
    assert watched(pieces, stops, include, armed_from) == by_definition("".join(pieces), stops, include, armed_from)


def test_holds_back_exactly_what_may_become_a_stop():
    watch = StopWatch(StopSet(("END", "\n\n")), include=False, nothing="")
    assert watch.push("so E") == ("so ", None)
    assert watch.push("N") == ("", None)
    assert watch.push("E") == ("EN", None)
    assert watch.push("x\n") == ("Ex", None)
    assert watch.push("\nmore") == ("", "\n\n")


def test_holds_nothing_back_when_the_stop_is_shown_anyway():
    watch = StopWatch(StopSet(("END",)), include=True, nothing="")
    assert watch.push("so E") == ("so E", None)
    assert watch.push("ND it is") == ("ND", "END")


def test_text_that_ends_while_held_is_shown():
    watch = StopWatch(StopSet(("END",)), include=False, nothing="")
    assert watch.push("EN") == ("", None)
    assert watch.finish() == "EN"


def test_time_is_linear_in_text_and_stops_that_nearly_match():
    stops = tuple("a" * 1000 + chr(0x4E00 + i) for i in range(32))
    started = time.process_time()
    watch = StopWatch(StopSet(stops), include=False, nothing="")
    for _ in range(100_000):
        watch.push("a")
    watch.push("b")
    assert time.process_time() - started < 5
