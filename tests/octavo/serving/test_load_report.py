"""Load reports in the answers over HTTP, for balancers that ask for them."""

import json
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from calls import Stream, infer_request
from server import Server, running

ASKED, TOLD = "endpoint-load-metrics-format", "endpoint-load-metrics"
NAMES = ["kv_cache_utilization", "max_token_capacity", "kv_cache_usage_perc", "num_requests_waiting", "num_requests_running"]
CALLS = {
    "/v2/models/tiny/generate": {"text_input": "hello", "max_tokens": 2},
    "/v2/models/tiny/generate_stream": {"text_input": "hello", "max_tokens": 2, "stream": True},
    "/v2/models/tiny/infer": {"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["hello"]}]},
    "/v1/completions": {"model": "tiny", "prompt": "hello", "max_tokens": 2},
}


def header(server: Server, path: str, body: object, **headers: str) -> str | None:
    request = urllib.request.Request(f"http://{server.http}{path}", json.dumps(body).encode(), headers)
    request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            response.read()
            return response.headers[TOLD]
    except urllib.error.HTTPError as error:
        return error.headers[TOLD]


@pytest.mark.parametrize("path", CALLS)
def test_whoever_asks_is_told(server: Server, path: str) -> None:
    text = header(server, path, CALLS[path], **{ASKED: "text"})
    assert text.startswith("TEXT ")
    pairs = dict(pair.split("=") for pair in text.removeprefix("TEXT ").split(", "))
    assert list(pairs) == [f"named_metrics.{name}" for name in NAMES]
    assert float(pairs["named_metrics.max_token_capacity"]) > 2048
    parsed = header(server, path, CALLS[path], **{ASKED: "JSON"})
    assert list(json.loads(parsed.removeprefix("JSON "))["named_metrics"]) == NAMES


def test_a_busy_server_says_so(server: Server) -> None:
    def metrics() -> dict[str, float]:
        told = header(server, "/v2/models/tiny/generate", CALLS["/v2/models/tiny/generate"], **{ASKED: "json"})
        return json.loads(told.removeprefix("JSON "))["named_metrics"]

    with Stream(server.grpc) as stream:
        next(stream.send(infer_request(max_tokens=1900)))
        server.wait_until(
            lambda: (told := metrics())["kv_cache_utilization"] > 0 and told["num_requests_running"] >= 1, "the cache to be in use"
        )
    server.wait_until(lambda: metrics()["num_requests_running"] <= 1, "the request to be gone")


def test_nobody_else_is_told(server: Server) -> None:
    generate = "/v2/models/tiny/generate"
    assert header(server, generate, CALLS[generate]) is None
    assert header(server, generate, CALLS[generate], **{ASKED: "xml"}) is None
    assert header(server, generate, {"text_input": "hello", "temperature": -1}, **{ASKED: "text"}) is None
    assert header(server, "/v2/repository/index", {}, **{ASKED: "text"}) is None


def test_a_supervisor_that_is_busy_holds_no_answer_up(repository: Path, tmp_path: Path) -> None:
    flags = ("--model-control-mode=explicit", "--load-model=tiny")
    path = "/v2/models/tiny/generate"
    with running(repository, *flags, log=tmp_path / "log") as server:
        assert header(server, path, CALLS[path], **{ASKED: "text"})
        time.sleep(0.2)
        server.process.send_signal(signal.SIGSTOP)
        try:
            assert header(server, path, CALLS[path], **{ASKED: "text"}) is None
        finally:
            server.process.send_signal(signal.SIGCONT)
        server.wait_until(lambda: header(server, path, CALLS[path], **{ASKED: "text"}) is not None, "the load to be told again")
