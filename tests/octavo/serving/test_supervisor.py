"""What ends the whole server because it is a bug of ours."""

import asyncio
from pathlib import Path

import pytest

from octavo.serving import supervisor
from octavo.serving.options import ServeOptions
from octavo.serving.supervisor import Supervisor


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
