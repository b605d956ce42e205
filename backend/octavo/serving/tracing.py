"""``Tracing``: spans of requests, sent to an OpenTelemetry collector. Imported only where traces are wanted; no prompt is in any.

A request that comes with a W3C context whose client traces it is traced, whatever the rate; others by rate and count.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from octavo.errors import OctavoError
from octavo.serving.identity import NAME, VERSION
from octavo.serving.settings import Settings, TraceExport
from octavo.text.generator import Generation

REQUEST_SPAN = "InferRequest"
_CONTEXT = ("traceparent", "tracestate")
_propagator = TraceContextTextMapPropagator()


class Tracing:
    """The traces of one front end. ``sampled`` hears of each model that a trace is counted for."""

    def __init__(self, export: TraceExport, sampled: Callable[[str], None]) -> None:
        """Export as ``export`` says, from a thread of the exporter's own."""
        batch = export.batch
        self._processor = BatchSpanProcessor(
            OTLPSpanExporter(endpoint=export.url),
            max_queue_size=batch.get("bsp_max_queue_size"),
            schedule_delay_millis=batch.get("bsp_schedule_delay"),
            max_export_batch_size=batch.get("bsp_max_export_batch_size"),
        )
        self._provider = TracerProvider(resource=Resource.create({"service.name": NAME, **export.resource}), shutdown_on_exit=False)
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("octavo", VERSION)
        self._sampled = sampled
        self._requests: Counter[str] = Counter()
        self._uncounted: Counter[str] = Counter()

    def begin(self, model: str, version: int, settings: Settings, header: Callable[[str], str | None]) -> "Trace | None":
        """The trace of a request for ``model`` that has just come, None if it is not to be traced."""
        if not settings.traced(model).trace_level:
            return None
        context = _propagator.extract({name: value for name in _CONTEXT if (value := header(name)) is not None})
        client = trace.get_current_span(context).get_span_context()
        wanted = client.trace_flags.sampled if client.is_valid else self._is_due(model, settings)
        return Trace(self._tracer, context, model, version) if wanted else None

    def counted(self, model: str) -> None:
        """The settings say by now that a trace of ``model`` was taken."""
        self._uncounted[model] -= 1

    def close(self, patience: float) -> None:
        """Send what is left and stop; waits for the collector, but no longer than ``patience`` seconds."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(patience)

    def _is_due(self, model: str, settings: Settings) -> bool:
        wanted = settings.traced(model)
        self._requests[model] += 1
        if not wanted.trace_rate or self._requests[model] % wanted.trace_rate:
            return False
        assert wanted.trace_count is not None
        if wanted.trace_count < 0:
            return True
        if wanted.trace_count <= self._uncounted[model]:
            return False
        self._uncounted[model] += 1
        self._sampled(model)
        return True


class Trace:
    """One request that is traced. Its spans are made once it is over, of the times that were noted anyway."""

    def __init__(self, tracer: trace.Tracer, context: Context, model: str, version: int) -> None:
        """``context``: what the client said."""
        self._tracer, self._context = tracer, context
        self._epoch = time.time_ns() - time.monotonic_ns()
        self._attributes: dict[str, str | int | float] = {"triton.model_name": model, "triton.model_version": version}

    def refuse(self, received_at: float, error: OctavoError) -> None:
        """The request was turned away."""
        now = time.monotonic()
        self._span(REQUEST_SPAN, received_at, now, self._context, self._attributes, error)

    def end(self, generation: Generation, received_at: float) -> None:
        """The request is over; ``received_at`` as the generation's times in seconds of ``time.monotonic``."""
        done = generation.finished_at or time.monotonic()
        request = self._span(
            REQUEST_SPAN, received_at, done, self._context, self._attributes | _facts(generation), generation.error
        )
        if generation.submitted_at is None:
            return
        inside = trace.set_span_in_context(request)
        if generation.queue_seconds is None:
            self._span("queue", generation.submitted_at, done, inside)
            return
        first = generation.first_token_at or done
        started = min(first, generation.submitted_at + generation.queue_seconds)
        self._span("queue", generation.submitted_at, started, inside)
        self._span("prefill", started, first, inside)
        if generation.first_token_at is not None:
            self._span("decode", first, done, inside)

    def _span(
        self,
        name: str,
        begin: float,
        end: float,
        context: Context,
        attributes: dict[str, str | int | float] | None = None,
        error: OctavoError | None = None,
    ) -> Span:
        kind = SpanKind.SERVER if name == REQUEST_SPAN else SpanKind.INTERNAL
        span = self._tracer.start_span(name, context, kind, attributes, start_time=self._epoch + int(begin * 1e9))
        if error is not None:
            span.set_attribute("error.type", error.kind.name)
            span.set_status(Status(StatusCode.ERROR, str(error)))
        span.end(self._epoch + int(end * 1e9))
        return span


def _facts(generation: Generation) -> dict[str, str | int | float]:
    """What is said of a request beside its times, under OpenTelemetry's names for generative AI and vLLM's for what these lack."""
    request, sampling = generation.request, generation.request.sampling
    facts: dict[str, str | int | float] = {
        "gen_ai.request.id": request.id,
        "gen_ai.request.n": sampling.n,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.response.model": request.model,
        "gen_ai.usage.prompt_tokens": generation.num_prompt_tokens,
        "gen_ai.usage.completion_tokens": generation.num_generation_tokens,
    }
    if sampling.max_tokens is not None:
        facts["gen_ai.request.max_tokens"] = sampling.max_tokens
    if generation.queue_seconds is not None:
        facts["gen_ai.latency.time_in_queue"] = generation.queue_seconds
    if generation.first_token_at is not None:
        facts["gen_ai.latency.time_to_first_token"] = generation.first_token_at - generation.arrived_at
    return facts
