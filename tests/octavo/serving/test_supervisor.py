"""What ends the whole server because it is a bug of ours, and what it says at its start."""

import asyncio
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from octavo.serving import supervisor
from octavo.serving.options import ServeOptions
from octavo.serving.security import read_security
from octavo.serving.supervisor import Ports, Supervisor


async def fail(_: Supervisor) -> None:
    raise ZeroDivisionError


async def stop_in_the_end(server: Supervisor) -> None:
    await asyncio.sleep(10)
    server.stop(0)


@pytest.mark.parametrize(("start", "count"), [(stop_in_the_end, fail), (fail, stop_in_the_end)])
def test_background_work_that_fails_ends_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start, count) -> None:
    monkeypatch.setattr(Supervisor, "start", start)
    monkeypatch.setattr(Supervisor, "collect_for_ever", count)
    assert supervisor.run(ServeOptions(model_repository=(tmp_path,), grpc_port=0, http_port=0, metrics_port=0)) == 1


def test_an_open_server_that_others_can_reach_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "tokens").write_text("all: x")
    exposed = ServeOptions(model_repository=(), grpc_port=0, http_port=0, metrics_port=0, http_address="127.0.0.1")
    local = replace(exposed, grpc_address="127.0.0.1", metrics_address="127.0.0.1")
    for options in (local, replace(exposed, auth_token_file=tmp_path / "tokens"), exposed):
        assert not caplog.messages
        with ExitStack() as stack:
            supervisor._announce(options, read_security(options), Ports(options, stack))
    text = "Anybody who can reach the grpc and the metrics port may use it: no credentials are configured."
    assert caplog.messages == [text]
