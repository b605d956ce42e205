"""The gaps of running requests: an engine that stalls for every long prompt is seen to."""

import itertools
import time

import pytest

from octavo.bench import itl

STALL = 0.02


class Stalling:
    """Decodes in no time, but takes a while for a long prompt."""

    def __init__(self) -> None:
        self.running: list[int] = []
        self.long: list[int] = []
        self._ids = itertools.count()

    def submit(self, prompts: list[list[int]], new_tokens: int) -> list[int]:
        ids = [next(self._ids) for _ in prompts]
        (self.running if new_tokens > 1 else self.long).extend(ids)
        return ids

    def step(self) -> list[int]:
        made = self.running + self.long
        time.sleep(STALL if self.long else 0.001)
        self.long = []
        return made

    def cancel(self, ids: list[int]) -> None:
        self.running = [request for request in self.running if request not in ids]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LONG_INPUT": 4, "SETTLE_SECONDS": 0.05, "QUIET_SECONDS": 0.1, "INTERVAL": 0.05}.items():
        monkeypatch.setattr(itl, name, value)


@pytest.mark.usefixtures("quick")
def test_a_stall_is_seen() -> None:
    engine = Stalling()
    result = itl.run(engine, vocab_size=100, max_model_len=1000)
    assert result.busy_max_ms >= STALL * 1e3 <= result.ttft_p50_ms
    assert 0 < result.quiet_p50_ms <= result.quiet_p99_ms
    assert result.busy_p50_ms <= result.busy_p99_ms <= result.busy_max_ms
    assert not engine.running
