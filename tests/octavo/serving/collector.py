"""An OpenTelemetry collector in this process: takes OTLP over HTTP and keeps the spans."""

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse


class Span(NamedTuple):
    name: str
    trace: str
    id: str
    parent: str
    begin: int
    end: int
    error: str
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Collector:
    """The spans that came, by trace in the order of their beginning."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Span] = []

    def take(self, request: ExportTraceServiceRequest) -> None:
        for group in request.resource_spans:
            resource = _values(group.resource.attributes)
            for scope in group.scope_spans:
                self.spans += [_span(span, resource) for span in scope.spans]

    def traces(self) -> dict[str, list[Span]]:
        traces: dict[str, list[Span]] = {}
        for span in sorted(self.spans, key=lambda span: (span.begin, span.parent != "", -span.end)):
            traces.setdefault(span.trace, []).append(span)
        return traces

    def wait(self, spans: int) -> None:
        deadline = time.monotonic() + 20
        while len(self.spans) < spans:
            assert time.monotonic() < deadline, f"{len(self.spans)} of {spans} spans came"
            time.sleep(0.02)


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"]))))
            body = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}/v1/traces")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def _span(span: Any, resource: dict[str, Any]) -> Span:
    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
    times = (span.start_time_unix_nano, span.end_time_unix_nano)
    return Span(span.name, *ids, *times, span.status.message, _values(span.attributes), resource)


def _values(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}
