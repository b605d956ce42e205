"""SIGTERM while HTTP clients read: open answers are finished, new ones refused, readiness is gone at once."""

import signal
from pathlib import Path

from http_calls import events, generate_body, post
from server import running


def test_open_streams_are_finished_and_new_ones_refused(repository: Path, tmp_path: Path) -> None:
    flags = ("--model-control-mode=explicit", "--load-model=tiny")
    with running(repository, *flags, log=tmp_path / "log") as server:
        stream = "/v2/models/tiny/generate_stream"
        reading = events(server, stream, generate_body(max_tokens=600, stream=True, return_num_output_tokens=True))
        assert next(reading) == 200
        first = next(reading)
        server.process.send_signal(signal.SIGTERM)
        server.wait_until(lambda: server.get("/v2/health/ready")[0] == 400, "readiness to go")
        assert server.get("/v2/health/live")[0] == 400
        assert post(server, stream, generate_body(stream=True)).refusal == (503, "Server not ready")
        assert post(server, "/v2/repository/index", {}).refusal == (503, "Server not ready")
        assert sum(piece["num_output_tokens"] for piece in (first, *reading)) == 600
        assert server.process.wait(timeout=60) == 0
