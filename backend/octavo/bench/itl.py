"""Gaps between the tokens of running requests, first in peace, then while a long prompt arrives every second.

Knows an engine by three verbs, so that a peer is measured in the same way.
"""

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Protocol

import msgspec
import numpy as np

from octavo.bench.prompts import random_prompts
from octavo.bench.recording import Recording
from octavo.bench.report import percentile

RUNNING, RUNNING_INPUT = 32, 128
LONG_INPUT = 8192
SETTLE_SECONDS, QUIET_SECONDS, ARRIVALS, INTERVAL = 1.0, 3.0, 6, 1.0


class Steppable(Protocol):
    """An engine that is stepped by hand."""

    def submit(self, prompts: list[list[int]], new_tokens: int) -> list[int]:
        """Send greedy requests for exactly ``new_tokens`` tokens each; their ids, which ascend by one from call to call."""
        ...

    def step(self) -> list[int]:
        """One step: the id of the request of every token that it made."""
        ...

    def cancel(self, ids: list[int]) -> None:
        """End these requests."""
        ...


class ItlResult(msgspec.Struct, frozen=True):
    """Gaps of the running requests while nothing else happens and while prompts arrive, and the TTFT of those prompts."""

    quiet_p50_ms: float
    quiet_p99_ms: float
    busy_p50_ms: float
    busy_p99_ms: float
    busy_max_ms: float
    ttft_p50_ms: float
    ttft_max_ms: float


def run(engine: Steppable, vocab_size: int, max_model_len: int) -> ItlResult:
    """Measure for some 15 seconds. One long prompt goes ahead, uncounted, so that nothing is met for the first time."""
    load = _Load(engine, vocab_size)
    running = engine.submit(random_prompts(RUNNING, RUNNING_INPUT, vocab_size, seed=31), max_model_len - RUNNING_INPUT)
    load.step_until(SETTLE_SECONDS)
    load.arrive(load.now)
    load.step_until(load.now + SETTLE_SECONDS)
    load.arrived.clear()
    quiet = load.now
    busy = quiet + QUIET_SECONDS
    load.step_until(busy)
    for number in range(ARRIVALS):
        load.arrive(busy + number * INTERVAL)
        load.step_until(busy + (number + 1) * INTERVAL)
    end = load.now
    while not load.all_answered:
        load.step()
    engine.cancel(running)
    return _result(load, running[0], (quiet, busy, end))


class _Load:
    """Steps an engine and notes when which token came, in seconds since it was made."""

    def __init__(self, engine: Steppable, vocab_size: int) -> None:
        self._engine = engine
        self._start = time.perf_counter()
        self._prompts = iter(random_prompts(ARRIVALS + 1, LONG_INPUT, vocab_size, seed=32))
        self._waiting: set[int] = set()
        self.ends: list[float] = []
        self.made: list[list[int]] = []
        self.arrived: dict[int, float] = {}

    @property
    def now(self) -> float:
        return time.perf_counter() - self._start

    @property
    def all_answered(self) -> bool:
        return not self._waiting

    def arrive(self, due: float) -> None:
        """Send a long prompt for one token."""
        (request,) = self._engine.submit([next(self._prompts)], 1)
        self.arrived[request] = due
        self._waiting.add(request)

    def step_until(self, end: float) -> None:
        while self.now < end:
            self.step()

    def step(self) -> None:
        made = self._engine.step()
        if made:
            self.ends.append(self.now)
            self.made.append(made)
            if self._waiting:
                self._waiting.difference_update(made)


def _result(load: _Load, first: int, times: tuple[float, float, float]) -> ItlResult:
    """``times``: when the quiet began, when the arrivals began, when they ended."""
    recording = Recording(RUNNING + ARRIVALS + 1, load.ends, load.made, first)
    gaps, at = recording.gaps
    quiet, busy = (gaps[(at > since) & (at <= until)] * 1e3 for since, until in pairwise(times))
    firsts = recording.first_tokens
    ttft = [(firsts[request - first] - due) * 1e3 for request, due in load.arrived.items()]
    return ItlResult(*_percentiles(quiet, 0.5, 0.99), *_percentiles(busy, 0.5, 0.99, 1), *_percentiles(np.array(ttft), 0.5, 1))


def _percentiles(values: np.ndarray, *fractions: float) -> Iterator[float]:
    return (float(percentile(values.tolist(), fraction)) for fraction in fractions)
