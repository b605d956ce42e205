"""Octavo with the models of the comparison: a language model on its own engine, and the test models of ``backend``."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "octavo" / "serving"))

from server import Server, running
from tiny import write_model, write_snapshot

from conformance.client import ADMIN
from octavo.serving.children import Programs

HOSTED = Programs(front_end="conformance.hosted_frontend", engine="conformance.hosted_engine")
LOADED = ("add_sub", "identity", "llm", "repeat")


@contextlib.contextmanager
def octavo() -> Iterator[Server]:
    """Serve the models under the names that the real Triton has them by, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        repository = _repository(Path(folder))
        keys = [f"--grpc-restricted-protocol=trace,logging:admin={ADMIN}", f"--http-restricted-api=trace,logging:admin={ADMIN}"]
        flags = ["--model-control-mode=explicit", *(f"--load-model={name}" for name in LOADED), *keys]
        with running(repository, *flags, log=Path(folder) / "log", programs=HOSTED) as server:
            yield server


def _repository(folder: Path) -> Path:
    snapshot, repository = folder / "snapshot", folder / "models"
    write_snapshot(snapshot)
    for name in (*LOADED, "spare"):
        write_model(repository, name, snapshot)
    second = repository / "add_sub" / "2"
    second.mkdir()
    (second / "model.json").write_text((repository / "add_sub" / "1" / "model.json").read_text())
    (repository / "llm" / "config.pbtxt").write_text('backend: "octavo"\n')
    write_model(repository, "failing", snapshot, max_model_len=10**6)
    return repository
