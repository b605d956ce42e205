"""The front end at an engine's rate: what a server does to a stream of tokens that costs nothing to make, beside a real Triton.

Both servers run at once, each before its source of tokens, and are asked in turn by the same client, so that what else the machine
does meets both. A round's figures are of one pair; medians of the rounds, and of their ratios, are what counts.
"""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from octavo.bench.cpu import CpuTime, cpu_time
from octavo.bench.hosted import MODEL, Target, octavo, triton
from octavo.bench.lanes import Door, Job
from octavo.bench.memory import pss_bytes
from octavo.bench.report import Row, percentile
from octavo.bench.streams import Seen
from octavo.config import EngineConfig

LANES = 64
PAST_BEST = 0.8  # of the best rate of responses: what comes after is not looked at
IDLE_STREAMS, IDLE_CONNECTIONS = 2000, 20
LATENCY_LANES, LATENCY_RATE = 8, 100
AGE_RATE = 50
TRY_SECONDS = 1.5
FLOOD_GOALS = {
    LANES: (
        ("rate", "responses", "1/s", ">= 1.3 x"),
        ("tokens", "tokens in a response", "", ""),
        ("per_message", "CPU for a response", "us", "<= 0.5 x"),
        ("kernel_per_message", "of it in the kernel", "us", ""),
        ("per_token", "CPU for a token", "us", "<= 25"),
    ),
    1: (("rate", "responses", "1/s", ">= 1.0 x"), ("tokens", "tokens in a response", "", "")),
}
PACED_GOALS = (
    ("added latency of a token", LATENCY_LANES, LATENCY_RATE, {0.5: "<= 0.5", 0.99: "<= 3"}),
    ("age of a token", LANES, AGE_RATE, {0.99: "<= 20"}),
)
IDLE_GOALS = (
    ("memory that they take", "MB", "<= 200"),
    ("p99 of a stream of 100 tokens/s without them", "ms", ""),
    ("p99 of a stream of 100 tokens/s beside them", "ms", "as without"),
)
OPENAI_GOALS = (
    ("rate", "events", "1/s", ""),
    ("tokens", "tokens in an event", "", ""),
    ("kernel_per_message", "CPU in the kernel for an event", "us", ""),
    ("per_token", "CPU for a token", "us", "<= 30"),
)
TRIED = {1: [1000 * 1.4**step for step in range(9)], LANES: [40 * 1.4**step for step in range(9)]}


class Figure(NamedTuple):
    """What one round gave of one figure, ours and the peer's (None if there is none)."""

    ours: float
    peer: float | None


class Flood(NamedTuple):
    """As many tokens as can be: messages a second, tokens in each, and microseconds of all processes' CPU."""

    rate: float
    tokens: float
    per_message: float
    kernel_per_message: float
    per_token: float


class Figures:
    """All rounds' figures by what they are of, in order."""

    def __init__(self) -> None:
        """Nothing was measured."""
        self._rounds: dict[tuple[str, str, str], list[Figure]] = {}

    def note(self, what: str, unit: str, goal: str, ours: float, peer: float | None) -> None:
        """One round's."""
        self._rounds.setdefault((what, unit, goal), []).append(Figure(ours, peer))

    def rows(self) -> list[Row]:
        """Their medians."""
        return [_row(*key, figures) for key, figures in self._rounds.items()]


def run(config: EngineConfig, venv: Path | None, front_ends: int, rounds: int, seconds: float) -> list[Row]:
    """Measure a server with the tokenizer of ``config``, and a real Triton out of ``venv`` if there is one."""
    figures = Figures()
    for shared in (False, True):
        with contextlib.ExitStack() as stack:
            ours = stack.enter_context(octavo(config, front_ends))
            peer = stack.enter_context(triton(venv)) if venv is not None else None
            rates = {lanes: best_rate(ours, lanes, shared) for lanes in TRIED}
            for _ in range(rounds):
                measure(figures, ours, peer, rates, shared, seconds)
            if not shared:
                rate = best_rate(ours, LANES, shared, Door.OPENAI)
                for _ in range(rounds):
                    measure_openai(figures, ours, rate, seconds)
    return figures.rows()


def measure(figures: Figures, ours: Target, peer: Target | None, rates: dict[int, int], shared: bool, seconds: float) -> None:
    """One round with every stream on a connection of its own, or on one (``shared``)."""
    how = "one connection" if shared else "a connection each"
    for lanes, rate in rates.items():
        what = f"{lanes} streams, {how}" if lanes > 1 else f"1 stream, {how}"
        mine, theirs = flood(ours, lanes, shared, seconds, rate), peer and flood(peer, lanes, shared, seconds)
        for field, name, unit, goal in FLOOD_GOALS[lanes]:
            figures.note(f"{what}: {name}", unit, goal, getattr(mine, field), theirs and getattr(theirs, field))
    for name, lanes, rate, goals in PACED_GOALS:
        mine_ages, their_ages = ages(ours, lanes, rate, shared, seconds), peer and ages(peer, lanes, rate, shared, seconds)
        for fraction, goal in goals.items():
            what = f"{lanes} streams of {rate} tokens/s, {how}: {name}, p{round(100 * fraction)}"
            theirs_ms = 1e3 * percentile(their_ages, fraction) if their_ages else None
            figures.note(what, "ms", goal, 1e3 * percentile(mine_ages, fraction), theirs_ms)
    mine_idle, their_idle = with_idle(ours, shared, seconds), peer and with_idle(peer, shared, seconds)
    for place, (name, unit, goal) in enumerate(IDLE_GOALS):
        what = f"{IDLE_STREAMS} idle streams, {how}: {name}"
        figures.note(what, unit, goal, mine_idle[place], their_idle and their_idle[place])


def measure_openai(figures: Figures, ours: Target, rate: int, seconds: float) -> None:
    """One round of completions, streamed over HTTP."""
    seen = flood(ours, LANES, False, seconds, rate, Door.OPENAI)
    for field, name, unit, goal in OPENAI_GOALS:
        figures.note(f"{LANES} completions over OpenAI's API: {name}", unit, goal, getattr(seen, field), None)


def best_rate(target: Target, lanes: int, shared: bool, door: Door = Door.GRPC) -> int:
    """The rate for each stream at which most responses come out.

    Below it the source is what limits, beyond it tokens are merged, and the source takes the cores from those who send them.
    """
    best, found = 0.0, 0
    for rate in map(int, TRIED[lanes]):
        responses = flood(target, lanes, shared, TRY_SECONDS, rate, door).rate
        if responses < PAST_BEST * best:
            break
        if responses > best:
            best, found = responses, rate
    return found


def flood(target: Target, lanes: int, shared: bool, seconds: float, rate: int = 0, door: Door = Door.GRPC) -> Flood:
    """What gets through of ``rate`` tokens a second for each stream, or of as many as can be made; of the best of its models."""
    jobs = [_job(target, lanes, rate, shared, seconds, door, model) for model in target.models]
    return max(_flood(target, job) for job in jobs)


def _job(target: Target, lanes: int, rate: int, shared: bool, seconds: float, door: Door = Door.GRPC, model: str = MODEL) -> Job:
    connections = 1 if shared else lanes
    address = target.addresses[door]
    return Job(address=address, door=door, model=model, lanes=lanes, rate=rate, seconds=seconds, connections=connections)


def _flood(target: Target, job: Job) -> Flood:
    used: list[CpuTime] = []
    seen = ask(job, lambda: used.append(cpu_time(target.pid)))
    every, kernel = (1e6 * (after - before) for before, after in zip(*used, strict=True))
    return Flood(
        rate=seen.messages / job.seconds,
        tokens=seen.tokens / seen.messages,
        per_message=every / seen.messages,
        kernel_per_message=kernel / seen.messages,
        per_token=every / seen.tokens,
    )


def ages(target: Target, lanes: int, rate: int, shared: bool, seconds: float) -> list[float]:
    """Seconds between the time at which each token was due in the source and that at which the client had it."""
    counted = max(seconds, 1.5 * 128 / rate)  # long enough for every stream to begin and end a request
    job = _job(target, lanes, rate, shared, counted)
    period = 1 / rate
    return [age for arrivals in ask(job, lambda: None).arrivals for age in lateness(arrivals, period)]


def lateness(arrivals: list[float], period: float) -> list[float]:
    """How late each token of a request was, one being due at every whole multiple of ``period`` from some point on.

    No token comes before it is due, so the first was due at the latest multiple that makes none of them early.
    """
    first = min(int(at // period) - place for place, at in enumerate(arrivals))
    return [at - (first + place) * period for place, at in enumerate(arrivals)]


def with_idle(target: Target, shared: bool, seconds: float) -> tuple[float, float, float]:
    """MB that idle streams take, and the p99 age in ms of a running stream's tokens before and beside them."""
    before = pss_bytes(target.pid)
    alone = percentile(ages(target, 1, LATENCY_RATE, shared, seconds), 0.99)
    connections = 1 if shared else IDLE_CONNECTIONS
    job = Job(
        address=target.addresses[Door.GRPC],
        model=MODEL,
        lanes=IDLE_STREAMS,
        tokens=1,
        seconds=0,
        connections=connections,
        idle=True,
    )
    with _client(job) as client:
        assert client.stdout is not None
        if not client.stdout.readline():
            raise RuntimeError("The idle streams could not be opened; the client's message is above.")
        more = pss_bytes(target.pid) - before
        beside = percentile(ages(target, 1, LATENCY_RATE, shared, seconds), 0.99)
    return more / 1e6, 1e3 * alone, 1e3 * beside


def ask(job: Job, mark: Callable[[], None]) -> Seen:
    """Have a client do ``job``; ``mark`` is called when what counts begins and when it ends."""
    with _client(job) as client:
        assert client.stdout is not None
        for _ in ("begin", "end"):
            client.stdout.readline()
            mark()
        seen = client.stdout.readline()
    if not seen:
        raise RuntimeError("The client failed; its message is above.")
    return msgspec.json.decode(seen, type=Seen)


@contextlib.contextmanager
def _client(job: Job) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "octavo.bench.streams"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        try:
            assert client.stdin is not None
            client.stdin.write(msgspec.json.encode(job))
            client.stdin.close()
            yield client
        finally:
            client.terminate()


def _row(what: str, unit: str, goal: str, figures: list[Figure]) -> Row:
    pairs = [(figure.ours, figure.peer) for figure in figures if figure.peer]
    ours = median(figure.ours for figure in figures)
    if not pairs:
        return Row(what, ours, unit, None, goal)
    return Row(what, ours, unit, median(peer for _, peer in pairs), goal, median(mine / peer for mine, peer in pairs))
