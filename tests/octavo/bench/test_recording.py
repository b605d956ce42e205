"""``Recording``: times, gaps and the steady part, out of who got a token when."""

import numpy as np
import pytest

from octavo.bench.recording import Recording

ENDS = [1.0, 3.0, 4.0, 6.0]
MADE = [[10], [10, 11, 12], [12, 11], [11, 12, 11]]


@pytest.fixture
def recording() -> Recording:
    return Recording(3, ENDS, MADE, first_id=10)


def test_times(recording: Recording) -> None:
    assert recording.seconds == 6.0
    assert recording.first_tokens.tolist() == [1.0, 3.0, 3.0]
    assert recording.step_seconds.tolist() == [1.0, 2.0, 1.0, 2.0]


def test_gaps(recording: Recording) -> None:
    gaps, at = recording.gaps
    assert sorted(zip(at.tolist(), gaps.tolist(), strict=True)) == [(3, 2), (4, 1), (4, 1), (6, 0), (6, 2), (6, 2)]


def test_the_steady_part_begins_after_the_last_first_token(recording: Recording) -> None:
    steady = recording.steady(input_len=100)
    assert steady is not None
    assert (steady.steps, steady.seconds, steady.tokens) == (2, 3.0, 5)
    # Request 11 reads 101, 102 and 103 tokens, request 12 reads 101 and 102.
    assert steady.context_tokens == 101 + 102 + 103 + 101 + 102


def test_nothing_is_steady_when_the_last_first_token_is_the_last() -> None:
    assert Recording(2, [1.0, 2.0], [[0], [0, 1]]).steady(5) is None


def test_against_a_plain_count() -> None:
    rng = np.random.default_rng(5)
    made = [rng.integers(0, 4, rng.integers(1, 6)).tolist() for _ in range(30)] + [[0, 1, 2, 3]]
    recording = Recording(4, np.arange(31.0).tolist(), made)
    seen = [0] * 4
    last_first = max(next(step for step, one in enumerate(made) if request in one) for request in range(4))
    contexts = 0
    for step, one in enumerate(made):
        for request in one:
            contexts += (7 + seen[request]) * (step > last_first)
            seen[request] += 1
    steady = recording.steady(7)
    assert steady is not None
    assert steady.context_tokens == contexts
