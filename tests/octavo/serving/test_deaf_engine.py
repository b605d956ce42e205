"""An engine that does not answer and cannot even be killed, as one whose device hangs, holds nobody up."""

import asyncio
import os
import time
from pathlib import Path

import pytest
import zmq.asyncio

from octavo.config import EngineConfig, WeightsFormat
from octavo.engine.control import EngineReport
from octavo.errors import OctavoError
from octavo.repository.spec import ModelSpec
from octavo.serving import children, engines
from octavo.serving.deployment import Deployment
from octavo.serving.engines import Engines
from octavo.serving.hub import Hub

SPEC = ModelSpec(
    "m", 1, b"", EngineConfig(name="m", version=1, weights="", weights_format=WeightsFormat.GGUF, tokenizer="", device="cpu"), []
)


class Watcher:
    """What the deployment told of its engine."""

    def __init__(self) -> None:
        self.died: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def engine_died(self, _: int, error: OctavoError) -> None:
        self.died.set_result(str(error))

    def engine_back(self) -> None: ...

    def failed(self, error: BaseException) -> None:
        raise error

    def gave_up(self, reason: str) -> None: ...


async def watch(folder: Path, kill: pytest.MonkeyPatch) -> str:
    hub: Hub[EngineReport] = Hub(zmq.asyncio.Context.instance(), f"ipc://{folder}/hub", EngineReport)
    running = Engines(hub, "deaf_engine", folder, failed=lambda error: None, patience=0.2)
    watcher = Watcher()
    deployment = Deployment(running, SPEC, 1, watcher)
    await deployment.start()
    assert deployment._process is not None
    process = deployment._process.child
    for signal in ("kill", "terminate", "send_signal"):
        kill.setattr(process._process, signal, lambda *_: None)
    try:
        async with asyncio.timeout(5):
            while not watcher.died.done():
                await running.collect()
                await asyncio.sleep(0.05)
            began = time.monotonic()
            await running.collect()
            assert time.monotonic() - began < 0.05, "nobody waits for the engine that is dead"
            await deployment.stop()
        assert process.running
    finally:
        os.kill(process.pid, 9)
        await asyncio.wait({process.exited})
        await running.close()
    return watcher.died.result()


def test_it_is_dead_at_once_and_waited_for_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(engines, "STATS_PATIENCE", 0.1)
    monkeypatch.setattr(children, "KILL_PATIENCE", 0.2)
    monkeypatch.setattr(children.Child.stop, "__defaults__", (0.2,))
    assert asyncio.run(watch(tmp_path, monkeypatch)) == "The engine of model 'm' has died. It has not answered for 0.2 s."
    assert any("does not end although it was killed" in message for message in caplog.messages)
