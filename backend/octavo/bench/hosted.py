"""The two servers of ``octavo bench frontend``, each before a source of tokens. Knows how they start, not what is measured.

Run as ``python -m octavo.bench.hosted REPOSITORY FRONT_ENDS`` it is ``octavo serve`` with ``octavo.bench.source`` for its engine.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from octavo.bench.lanes import Door
from octavo.bench.real_triton import real_triton
from octavo.config import EngineConfig
from octavo.serving.children import Programs
from octavo.serving.options import ServeOptions
from octavo.serving.supervisor import run

MODEL, THREADED = "source", "source_threads"
SOURCE = Path(__file__).with_name("triton_source.py")
LOOPBACK = "127.0.0.1"
_CONFIG = """backend: "python"
max_batch_size: 0
model_transaction_policy { decoupled: true }
input [
  { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "stream" data_type: TYPE_BOOL dims: [ 1 ] optional: true },
  { name: "sampling_parameters" data_type: TYPE_STRING dims: [ 1 ] optional: true }
]
output [ { name: "text_output" data_type: TYPE_STRING dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU } ]
parameters { key: "threads" value { string_value: "%s" } }
"""


class Target(NamedTuple):
    """A running server: its process, its addresses, and the models that make tokens as fast as they can, each in its way."""

    pid: int
    addresses: dict[Door, str]
    models: tuple[str, ...]


@contextlib.contextmanager
def octavo(config: EngineConfig, front_ends: int) -> Iterator[Target]:
    """Serve a source with the tokenizer of ``config`` until the block ends."""
    with tempfile.TemporaryDirectory(prefix="octavo-bench-") as folder:
        version = Path(folder) / MODEL / "1"
        version.mkdir(parents=True)
        (version.parent / "config.pbtxt").write_text('backend: "octavo"\n')
        (version / "model.json").write_text(json.dumps({"model": config.weights, "tokenizer": config.tokenizer}))
        command = [sys.executable, "-m", "octavo.bench.hosted", folder, str(front_ends)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            ready = process.stdout.readline().split()
            if not ready:
                raise RuntimeError("The server did not start; its log says why.")
            addresses = dict(part.split("=", 1) for part in ready[2:])
            yield Target(process.pid, {Door.GRPC: addresses["grpc"], Door.OPENAI: addresses["http"]}, (MODEL,))
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def triton(venv: Path) -> Iterator[Target]:
    """Serve the same from a real Triton until the block ends; ``venv`` has nvidia-pytriton."""
    with tempfile.TemporaryDirectory(prefix="octavo-bench-") as folder:
        for name, threads in ((MODEL, "no"), (THREADED, "yes")):
            version = Path(folder) / name / "1"
            version.mkdir(parents=True)
            (version.parent / "config.pbtxt").write_text(_CONFIG % threads)
            shutil.copy(SOURCE, version / "model.py")
        with real_triton(venv, Path(folder), (MODEL, THREADED)) as server:
            yield Target(server.pid, {Door.GRPC: server.grpc}, (MODEL, THREADED))


def main(repository: str, front_ends: str) -> int:
    """Serve until SIGTERM; the exit code."""
    options = ServeOptions(
        model_repository=(Path(repository),),
        front_ends=int(front_ends),
        grpc_address=LOOPBACK,
        grpc_port=0,
        http_address=LOOPBACK,
        http_port=0,
        metrics_address=LOOPBACK,
        metrics_port=0,
    )
    return run(options, Programs(engine="octavo.bench.source"))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
