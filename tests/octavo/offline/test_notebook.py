"""A notebook: cells that a Jupyter kernel runs while its event loop does."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from jupyter_client import BlockingKernelClient, KernelManager

ENGINE = "octavo.engine.process"
PATIENCE = 120
LOAD = """
import asyncio
asyncio.get_running_loop()
from octavo import LLM, SamplingParams
llm = LLM({model!r}, dtype="float32", device="cpu")
print("loaded")
"""
GENERATE = """
answers = llm.generate(["x", "y"], SamplingParams(max_tokens=3, ignore_eos=True){quiet})
await asyncio.sleep(0)
print([len(answer.outputs[0].token_ids) for answer in answers])
"""


class Notebook:
    """A kernel of its own, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._errors = folder / "stderr"
        self.sockets = folder / "tmp"
        self.sockets.mkdir()
        self._manager = KernelManager(connection_file=str(folder / "kernel.json"), transport="ipc", shutdown_wait_time=PATIENCE)
        folders = {name: str(folder) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
        with self._errors.open("w") as errors:
            self._manager.start_kernel(env=os.environ | folders | {"TMPDIR": str(self.sockets)}, stderr=errors)
        self._client: BlockingKernelClient = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=PATIENCE)

    def run(self, cell: str) -> dict[str, str]:
        """What a cell writes, by stream, and the exception that ends it."""
        said: dict[str, str] = {}

        def hear(message: dict) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                said[content["name"]] = said.get(content["name"], "") + content["text"]
            elif message["msg_type"] == "error":
                said["error"] = "\n".join(content["traceback"])

        self._client.execute_interactive(cell, output_hook=hear, timeout=PATIENCE)
        return said

    def engines(self) -> list[psutil.Process]:
        """Those that have been started and run."""
        pid = self._manager.provisioner.process.pid
        return [child for child in psutil.Process(pid).children() if ENGINE in child.cmdline()]

    def close(self) -> str:
        """End it as closing the page does; what it has written beside its cells."""
        if self._manager.has_kernel:
            self._manager.shutdown_kernel()
            self._client.stop_channels()
        return self._errors.read_text()


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Notebook]:
    made = Notebook(tmp_path)
    yield made
    made.close()


def test_a_notebook_is_answered_while_its_event_loop_runs_and_ends_without_a_trace(notebook: Notebook, snapshot: Path) -> None:
    assert notebook.run(LOAD.format(model=str(snapshot))) == {"stdout": "loaded\n"}
    (engine,) = notebook.engines()
    assert notebook.run(GENERATE.format(quiet=", use_tqdm=False")) == {"stdout": "[3, 3]\n"}
    with_bar = notebook.run(GENERATE.format(quiet=""))
    assert with_bar.pop("stdout") == "[3, 3]\n"
    (bar,) = with_bar.values()
    assert "2/2" in bar and "Warning" not in bar
    assert notebook.close() == ""
    assert psutil.wait_procs([engine], timeout=PATIENCE)[1] == []
    assert list(notebook.sockets.iterdir()) == []
