"""Counters add up whoever counted."""

import msgspec

from octavo.serving.statistics import MAX_RESPONSES, Counters, FailureReason, Histogram, Ledger


def counted(seconds: float) -> Counters:
    counters = Counters()
    counters.success.observe(int(seconds * 1e9))
    counters.failures[FailureReason.CANCELED] += 2
    counters.prompt_tokens += 3
    counters.last_inference_ms = int(seconds)
    counters.time_to_first_token.observe(seconds, times=2)
    counters.response(int(seconds)).success += 5
    return counters


def test_sums_are_sums_of_all_fields() -> None:
    total = Counters()
    for seconds in (1.0, 9.0, 4.0):
        total.add(counted(seconds))
    assert (total.success.count, total.success.ns) == (3, 14_000_000_000)
    assert total.failures[FailureReason.CANCELED] == 6
    assert total.failures[FailureReason.BACKEND] == 0
    assert total.prompt_tokens == 9
    assert total.last_inference_ms == 9
    assert total.time_to_first_token.total == 28.0
    assert [place for place, counted in enumerate(total.responses) if counted.success == 5] == [1, 4, 9]
    assert sum(total.time_to_first_token.counts) == 6


def test_an_answer_without_end_fills_no_memory() -> None:
    counters = Counters()
    for place in range(2 * MAX_RESPONSES):
        counters.response(place).success += 1
    assert len(counters.responses) == MAX_RESPONSES


def test_a_value_on_an_edge_belongs_to_the_bucket_below() -> None:
    histogram = Histogram.over((1.0, 2.0))
    for value in (1.0, 1.5, 2.0, 2.1):
        histogram.observe(value)
    assert histogram.counts == [1, 2, 1]


def test_counters_cross_a_socket() -> None:
    counters = counted(1.0)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(counters), type=Counters) == counters


def test_what_was_taken_is_not_counted_twice() -> None:
    ledger = Ledger()
    ledger.of("b", 1).prompt_tokens += 1
    ledger.of("a", 2).prompt_tokens += 2
    assert [key for key, _ in ledger] == [("a", 2), ("b", 1)]
    assert {key: counters.prompt_tokens for key, counters in ledger.take().items()} == {("a", 2): 2, ("b", 1): 1}
    ledger.of("a", 2).prompt_tokens += 5
    assert {key: counters.prompt_tokens for key, counters in ledger.take().items()} == {("a", 2): 5}
