"""``Counters``: everything that is counted per model version. Additive, so that many processes count and one sums up."""

from bisect import bisect_left
from collections.abc import Iterator
from enum import StrEnum

import msgspec

LATENCY_EDGES = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TOKEN_EDGES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
REQUEST_EDGES = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0)
LENGTH_EDGES = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))
MAX_RESPONSES = 1024
SAMPLES_EDGES = (1.0, 2.0, 5.0, 10.0, 20.0)


class FailureReason(StrEnum):
    """Why a request failed, under the label values of ``nv_inference_request_failure``."""

    REJECTED = "REJECTED"
    CANCELED = "CANCELED"
    BACKEND = "BACKEND"
    OTHER = "OTHER"


class Histogram(msgspec.Struct):
    """Observations by bucket. ``counts[i]`` counts values in ``(edges[i-1], edges[i]]``; the last bucket has no upper edge."""

    edges: tuple[float, ...]
    counts: list[int]
    total: float = 0.0

    @staticmethod
    def over(edges: tuple[float, ...]) -> "Histogram":
        """An empty histogram."""
        return Histogram(edges, [0] * (len(edges) + 1))

    def observe(self, value: float, times: int = 1) -> None:
        """Count ``value``, ``times`` times."""
        self.counts[bisect_left(self.edges, value)] += times
        self.total += value * times

    def observe_all(self, values: list[float]) -> None:
        """Count each of ``values``."""
        edges, counts = self.edges, self.counts
        for value in values:
            counts[bisect_left(edges, value)] += 1
        self.total += sum(values)

    def add(self, other: "Histogram") -> None:
        """Count all that ``other`` has counted."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class Timing(msgspec.Struct):
    """How often a thing happened and how long it took altogether, in nanoseconds."""

    count: int = 0
    ns: int = 0

    def observe(self, ns: int) -> None:
        """Count one that took ``ns``."""
        self.count += 1
        self.ns += ns

    def add(self, other: "Timing") -> None:
        """Count all that ``other`` has counted."""
        self.count += other.count
        self.ns += other.ns


class ResponseCounters(msgspec.Struct, array_like=True):
    """What was counted of the responses that have one place in their answers: the first of each, the second of each, ...

    Counts, and seconds: to compute a response, to make text of it, and until one was cancelled. Plain numbers, because there is
    an addition for each token.
    """

    success: int = 0
    compute: float = 0.0
    text: float = 0.0
    fail: int = 0
    failed_compute: float = 0.0
    failed_text: float = 0.0
    cancel: int = 0
    cancelled: float = 0.0

    def add(self, other: "ResponseCounters") -> None:
        """Count all that ``other`` has counted."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Counters(msgspec.Struct):
    """One model version's counters. Every number only grows; ``last_inference_ms`` is milliseconds since the epoch.

    ``responses`` are by place in the answer, at most ``MAX_RESPONSES``.
    """

    success: Timing = msgspec.field(default_factory=Timing)
    fail: Timing = msgspec.field(default_factory=Timing)
    queue: Timing = msgspec.field(default_factory=Timing)
    compute_input: Timing = msgspec.field(default_factory=Timing)
    compute_infer: Timing = msgspec.field(default_factory=Timing)
    compute_output: Timing = msgspec.field(default_factory=Timing)
    failures: dict[FailureReason, int] = msgspec.field(default_factory=lambda: dict.fromkeys(FailureReason, 0))
    last_inference_ms: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    time_to_first_token: Histogram = msgspec.field(default_factory=lambda: Histogram.over(LATENCY_EDGES))
    inter_token_latency: Histogram = msgspec.field(default_factory=lambda: Histogram.over(TOKEN_EDGES))
    queue_time: Histogram = msgspec.field(default_factory=lambda: Histogram.over(REQUEST_EDGES))
    request_latency: Histogram = msgspec.field(default_factory=lambda: Histogram.over(REQUEST_EDGES))
    prompt_length: Histogram = msgspec.field(default_factory=lambda: Histogram.over(LENGTH_EDGES))
    generation_length: Histogram = msgspec.field(default_factory=lambda: Histogram.over(LENGTH_EDGES))
    samples: Histogram = msgspec.field(default_factory=lambda: Histogram.over(SAMPLES_EDGES))
    responses: list[ResponseCounters] = []

    def response(self, place: int) -> ResponseCounters:
        """The counters of responses at ``place``; those that come after all that are counted have none that are kept."""
        responses = self.responses
        if place >= len(responses):
            if place >= MAX_RESPONSES:
                return ResponseCounters()
            responses += [ResponseCounters() for _ in range(place + 1 - len(responses))]
        return responses[place]

    def add(self, other: "Counters") -> None:
        """Count all that ``other`` has counted."""
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, Timing | Histogram):
                mine.add(theirs)
            elif isinstance(mine, list):
                for place, counted in enumerate(theirs):
                    self.response(place).add(counted)
            elif isinstance(mine, dict):
                self.failures = {reason: mine[reason] + theirs[reason] for reason in mine}
            elif name == "last_inference_ms":
                self.last_inference_ms = max(mine, theirs)
            else:
                setattr(self, name, mine + theirs)


class Ledger:
    """Counters of many model versions. A front end keeps one of deltas, the supervisor one of totals."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self._counters: dict[tuple[str, int], Counters] = {}

    def of(self, name: str, version: int) -> Counters:
        """The counters of one version, zero at first."""
        counters = self._counters.get((name, version))
        if counters is None:
            counters = self._counters[name, version] = Counters()
        return counters

    def take(self) -> dict[tuple[str, int], Counters]:
        """Everything counted since the last ``take``, which is then forgotten here."""
        taken, self._counters = self._counters, {}
        return taken

    def __iter__(self) -> Iterator[tuple[tuple[str, int], Counters]]:
        """``((name, version), counters)``, by name and version."""
        return iter(sorted(self._counters.items(), key=lambda item: item[0]))
