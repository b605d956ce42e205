"""``/metrics``: what the supervisor knows, as Prometheus text under the names of Triton, vllm_backend and vLLM."""

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from octavo.engine.messages import EngineStats
from octavo.serving.engines import EngineTotals
from octavo.serving.statistics import Counters, Histogram

LABELS = ["model", "version"]


class Reading:
    """Everything about one model version at one moment."""

    def __init__(
        self, name: str, version: int, counters: Counters, totals: EngineTotals, levels: EngineStats, page_size: int
    ) -> None:
        """``counters`` from the front ends, ``totals``, ``levels`` and ``page_size`` from the engines; 0 means there is none."""
        self.labels = [name, str(version)]
        self.counters, self.totals, self.levels, self.page_size = counters, totals, levels, page_size


GAUGES: list[tuple[str, str, Callable[[Reading], float]]] = [
    ("vllm:num_requests_running", "Requests in the running batch.", lambda r: r.levels.running),
    ("vllm:num_requests_waiting", "Requests that wait for their first step.", lambda r: r.levels.waiting),
    (
        "nv_inference_pending_request_count",
        "Instantaneous number of pending requests awaiting execution per-model.",
        lambda r: r.levels.waiting,
    ),
    (
        "vllm:kv_cache_usage_perc",
        "Share of the KV cache pages in use; 1 is all.",
        lambda r: r.levels.pages_used / max(1, r.levels.pages_total),
    ),
]
COUNTERS: list[tuple[str, str, Callable[[Reading], float]]] = [
    ("vllm:prompt_tokens", "Prompt tokens of the requests that were answered.", lambda r: r.counters.prompt_tokens),
    ("vllm:generation_tokens", "Tokens that were generated and sent.", lambda r: r.counters.generation_tokens),
    ("vllm:prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", lambda r: r.totals.prefix_queries),
    ("vllm:prefix_cache_hits", "Prompt tokens found in the prefix cache.", lambda r: r.totals.prefix_hits),
    ("vllm:num_preemptions", "Requests that lost their pages and were computed again.", lambda r: r.totals.preemptions),
    ("octavo:engine_restarts", "Engines that died and were started again.", lambda r: r.totals.restarts),
]
HISTOGRAMS: list[tuple[str, str, Callable[[Counters], Histogram]]] = [
    ("vllm:time_to_first_token_seconds", "From a request's arrival to its first token.", lambda c: c.time_to_first_token),
    ("vllm:inter_token_latency_seconds", "Between two tokens of a request.", lambda c: c.inter_token_latency),
    ("vllm:time_per_output_token_seconds", "As vllm_backend names the inter-token latency.", lambda c: c.inter_token_latency),
    ("vllm:request_queue_time_seconds", "From a request's arrival at the engine to its first step.", lambda c: c.queue_time),
    ("vllm:e2e_request_latency_seconds", "From a request's arrival to its end.", lambda c: c.request_latency),
    ("vllm:request_prompt_tokens", "Prompt tokens of a request.", lambda c: c.prompt_length),
    ("vllm:request_generation_tokens", "Tokens generated for a request.", lambda c: c.generation_length),
    ("vllm:request_params_n", "Samples asked for by a request.", lambda c: c.samples),
]
# Facts that gateways read from labels; the value says nothing, or when it was read.
INFOS: list[tuple[str, str, Callable[[Reading], dict[str, str]], Callable[[], float]]] = [
    (
        "vllm:cache_config_info",
        "How the KV cache is divided: tokens in a page and pages.",
        lambda r: {"block_size": str(r.page_size), "num_gpu_blocks": str(r.levels.pages_total)},
        lambda: 1.0,
    ),
    (
        "vllm:lora_requests_info",
        "Adapters in use; the value is when this was so, in seconds since the epoch.",
        lambda r: {"max_lora": "0", "running_lora_adapters": "", "waiting_lora_adapters": ""},
        time.time,
    ),
]
TRITON_COUNTERS: list[tuple[str, str, Callable[[Counters], int]]] = [
    (
        "nv_inference_request_success",
        "Number of successful inference requests, all batch sizes",
        lambda c: c.success.count,
    ),
    (
        "nv_inference_count",
        "Number of inferences performed (does not include cached requests)",
        lambda c: c.success.count,
    ),
    (
        "nv_inference_exec_count",
        "Number of model executions performed (does not include cached requests)",
        lambda c: c.success.count,
    ),
    (
        "nv_inference_request_duration_us",
        "Cumulative inference request duration in microseconds (includes cached requests)",
        lambda c: c.success.ns // 1000,
    ),
    (
        "nv_inference_queue_duration_us",
        "Cumulative inference queuing duration in microseconds (includes cached requests)",
        lambda c: c.queue.ns // 1000,
    ),
    (
        "nv_inference_compute_input_duration_us",
        "Cumulative compute input duration in microseconds (does not include cached requests)",
        lambda c: c.compute_input.ns // 1000,
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "Cumulative compute inference duration in microseconds (does not include cached requests)",
        lambda c: c.compute_infer.ns // 1000,
    ),
    (
        "nv_inference_compute_output_duration_us",
        "Cumulative inference compute output duration in microseconds (does not include cached requests)",
        lambda c: c.compute_output.ns // 1000,
    ),
]


class _Families:
    """A registry's collector over readings that are already taken."""

    def __init__(self, readings: Iterable[Reading]) -> None:
        self._readings = list(readings)

    def collect(self) -> Iterator[Metric]:
        """One family per metric, one sample per model version."""
        for name, text, value in GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=LABELS)
            for reading in self._readings:
                gauge.add_metric(reading.labels, value(reading))
            yield gauge
        for name, text, labels, now in INFOS:
            yield from self._info(name, text, labels, now)
        for name, text, value in COUNTERS:
            counter = CounterMetricFamily(name, text, labels=LABELS)
            for reading in self._readings:
                counter.add_metric(reading.labels, value(reading))
            yield counter
        for name, text, histogram in HISTOGRAMS:
            family = HistogramMetricFamily(name, text, labels=LABELS)
            for reading in self._readings:
                family.add_metric(reading.labels, *_buckets(histogram(reading.counters)))
            yield family

    def _info(
        self, name: str, text: str, labels: Callable[[Reading], dict[str, str]], now: Callable[[], float]
    ) -> Iterator[Metric]:
        known = [reading for reading in self._readings if reading.page_size]
        if known:
            family = GaugeMetricFamily(name, text, labels=[*LABELS, *labels(known[0])])
            for reading in known:
                family.add_metric([*reading.labels, *labels(reading).values()], now())
            yield family


def exposition(readings: list[Reading]) -> bytes:
    """The text of a scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(readings))
    return generate_latest(registry) + "".join(_triton_lines(readings)).encode()


def metrics_app(read: Callable[[], Awaitable[list[Reading]]], others: Iterable[Route] = ()) -> Starlette:
    """The application of the metrics port; ``read`` takes the readings of a scrape. ``others``: what else it serves."""

    async def metrics(_: Request) -> Response:
        return Response(exposition(await read()), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return Starlette(routes=[Route("/metrics", metrics), *others])


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    reached, cumulative = 0, []
    for edge, count in zip((*histogram.edges, float("inf")), histogram.counts, strict=True):
        reached += count
        cumulative.append(("+Inf" if edge == float("inf") else repr(edge), float(reached)))
    return cumulative, histogram.total


def _triton_lines(readings: list[Reading]) -> Iterator[str]:
    # Triton's counters do not end in _total, which the library's own writer insists on.
    for name, text, value in TRITON_COUNTERS:
        yield from _triton_family(name, text, ((_labels(r), value(r.counters)) for r in readings))
    failures = ((_labels(r, reason=reason), n) for r in readings for reason, n in r.counters.failures.items())
    yield from _triton_family("nv_inference_request_failure", "Number of failed inference requests, all batch sizes", failures)


def _triton_family(name: str, text: str, samples: Iterable[tuple[str, int]]) -> Iterator[str]:
    yield f"# HELP {name} {text}\n# TYPE {name} counter\n"
    for labels, value in samples:
        yield f"{name}{{{labels}}} {value}\n"


def _labels(reading: Reading, **more: str) -> str:
    name = reading.labels[0].replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    extra = "".join(f'{key}="{value}",' for key, value in more.items())
    return f'model="{name}",{extra}version="{reading.labels[1]}"'
