"""Traces of requests, as an OpenTelemetry collector gets them: their spans, whose children they are, and how many there are."""

import contextlib
import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from calls import Stream, infer_request
from collector import Collector, Span, collecting
from server import Server, running

KEY = {"triton-grpc-protocol-admin": "opensesame"}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
PARTS = ["InferRequest", "queue", "prefill", "decode"]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as started:
        yield started


@pytest.fixture(scope="module")
def traced(repository: Path, collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that traces every request, and whose settings may be changed by who knows the key."""
    traces = ["mode=opentelemetry", "rate=1", "opentelemetry,bsp_schedule_delay=20", f"opentelemetry,url={collector.url}"]
    traces += ["opentelemetry,resource=service.name=tested"]
    flags = [*(f"--trace-config={flag}" for flag in traces), "--grpc-restricted-protocol=trace:admin=opensesame"]
    log = tmp_path_factory.mktemp("log") / "log"
    with running(repository, "--model-control-mode=explicit", "--load-model=tiny", *flags, log=log) as server:
        yield server


@pytest.fixture
def admin(traced: Server, collector: Collector) -> Iterator[triton.InferenceServerClient]:
    collector.spans.clear()
    client = traced.client()
    yield client
    client.update_trace_settings(settings={"trace_rate": [], "trace_count": [], "trace_level": []}, headers=KEY)
    client.close()


def infer(client: triton.InferenceServerClient, *metadata: tuple[str, str]) -> None:
    client._client_stub.ModelInfer(infer_request(stream=False, request_id="r", max_tokens=5), metadata=metadata)


def only_trace(collector: Collector) -> list[Span]:
    (trace,) = collector.traces().values()
    return trace


def test_the_parts_of_a_request_are_spans_in_a_row(collector: Collector, admin: triton.InferenceServerClient) -> None:
    before = time.time_ns()
    infer(admin)
    collector.wait(4)
    request, queue, prefill, decode = trace = only_trace(collector)
    assert [span.name for span in trace] == PARTS
    assert {span.parent for span in trace[1:]} == {request.id}
    assert not request.parent
    assert before <= request.begin <= queue.begin
    assert (queue.end, prefill.end, decode.end) == (prefill.begin, decode.begin, request.end)
    assert all(span.begin <= span.end for span in trace)
    assert prefill.begin < prefill.end < decode.end <= time.time_ns()
    assert request.resource["service.name"] == "tested"
    wanted = {
        "triton.model_name": "tiny",
        "triton.model_version": 1,
        "gen_ai.request.id": "r",
        "gen_ai.request.max_tokens": 5,
        "gen_ai.usage.prompt_tokens": 5,
        "gen_ai.usage.completion_tokens": 5,
    }
    assert wanted.items() <= request.attributes.items()
    assert "hello" not in str(trace)


@pytest.mark.parametrize("way", ["unary", "stream", "/v2/models/tiny/generate", "/v1/completions"])
def test_a_clients_own_trace_goes_on_here(
    traced: Server, collector: Collector, admin: triton.InferenceServerClient, way: str
) -> None:
    admin.update_trace_settings(settings={"trace_rate": "0"}, headers=KEY)
    if way == "unary":
        infer(admin, ("traceparent", SAMPLED))
    elif way == "stream":
        with Stream(traced.grpc, metadata=[("traceparent", SAMPLED)]) as stream:
            stream.send(infer_request()).rest()
    else:
        asked = {"text_input": "hello"} if "generate" in way else {"model": "tiny", "prompt": "hello"}
        headers = {"traceparent": SAMPLED, "content-type": "application/json"}
        request = urllib.request.Request(f"http://{traced.http}{way}", json.dumps({**asked, "max_tokens": 3}).encode(), headers)
        urllib.request.urlopen(request, timeout=30).close()
    infer(admin)
    infer(admin, ("traceparent", UNSAMPLED))
    infer(admin, ("traceparent", "nonsense"))
    collector.wait(4)
    time.sleep(0.2)
    trace = only_trace(collector)
    assert [span.name for span in trace] == PARTS
    assert (trace[0].trace, trace[0].parent) == (TRACE, PARENT)


def test_every_second_request_and_only_so_many(collector: Collector, admin: triton.InferenceServerClient) -> None:
    admin.update_trace_settings(settings={"trace_rate": "2"}, headers=KEY)
    admin.update_trace_settings("tiny", {"trace_count": "3"}, headers=KEY)
    for _ in range(12):
        infer(admin)
    collector.wait(12)
    time.sleep(0.2)
    assert len(collector.traces()) == 3
    assert list(admin.get_trace_settings("tiny", headers=KEY).settings["trace_count"].value) == ["0"]
    assert list(admin.get_trace_settings(headers=KEY).settings["trace_count"].value) == ["-1"]
    admin.update_trace_settings("tiny", {"trace_count": []}, headers=KEY)


def test_nothing_is_traced_at_level_off(collector: Collector, admin: triton.InferenceServerClient) -> None:
    admin.update_trace_settings(settings={"trace_level": "OFF"}, headers=KEY)
    settings = admin.get_trace_settings(headers=KEY).settings
    assert {name: list(value.value) for name, value in settings.items()} == {
        "trace_level": ["OFF"],
        "trace_mode": ["opentelemetry"],
        "trace_rate": ["1"],
        "trace_count": ["-1"],
    }
    infer(admin, ("traceparent", SAMPLED))
    time.sleep(0.2)
    assert not collector.spans


def test_a_request_that_fails_says_so(traced: Server, collector: Collector, admin: triton.InferenceServerClient) -> None:
    with Stream(traced.grpc) as stream:
        assert next(stream.send(infer_request(temperature=-1))).error_message
    collector.wait(1)
    (refused,) = only_trace(collector)
    assert (refused.name, refused.attributes["error.type"]) == ("InferRequest", "INVALID_REQUEST")
    assert refused.error.startswith("temperature must be")
    collector.spans.clear()
    with Stream(traced.grpc) as stream:
        next(stream.send(infer_request(max_tokens=1900)))
        stream.call.cancel()
    collector.wait(4)
    trace = only_trace(collector)
    assert [span.name for span in trace] == PARTS
    assert trace[0].error == "Request was cancelled"


def test_what_was_not_sent_yet_is_sent_at_the_end(repository: Path, collector: Collector, tmp_path: Path) -> None:
    collector.spans.clear()
    with untold(repository, collector.url, tmp_path / "log") as server:
        assert not collector.spans
        assert server.stop() == 0
    assert [span.name for span in only_trace(collector)] == PARTS


@pytest.mark.long
def test_a_collector_that_is_not_there_costs_nothing_but_the_traces(repository: Path, tmp_path: Path) -> None:
    with untold(repository, "http://127.0.0.1:9/v1/traces", tmp_path / "log") as server:
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 8


@contextlib.contextmanager
def untold(repository: Path, url: str, log: Path) -> Iterator[Server]:
    """A server that has a trace which it will send in an hour."""
    flags = ("mode=opentelemetry", "rate=1", f"opentelemetry,url={url}", "opentelemetry,bsp_schedule_delay=3600000")
    traces = [f"--trace-config={flag}" for flag in flags]
    with running(repository, "--model-control-mode=explicit", "--load-model=tiny", *traces, log=log) as server:
        with server.client() as client:
            infer(client)
        yield server
