"""A real Triton Inference Server out of nvidia-pytriton's wheel, with its Python backend, on free ports of this machine."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

START_PATIENCE = 90.0


class Triton(NamedTuple):
    """A running server, and where it listens."""

    pid: int
    grpc: str
    http: str


@contextlib.contextmanager
def real_triton(venv: Path, models: Path, loaded: Iterable[str]) -> Iterator[Triton]:
    """Serve the ``loaded`` of ``models``, from the ``venv`` that has nvidia-pytriton, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="triton-") as folder, open(Path(folder) / "log", "w+") as log:
        grpc, http, metrics = _free_ports(3)
        shutil.copytree(models, Path(folder) / "models", ignore=shutil.ignore_patterns("__pycache__"))
        command = [*_command(venv, Path(folder), grpc, http, metrics), *(f"--load-model={name}" for name in loaded)]
        process = subprocess.Popen(command, env=_environment(venv), stdout=log, stderr=log)
        try:
            _wait_until_ready(process, http, Path(folder) / "log")
            yield Triton(process.pid, f"127.0.0.1:{grpc}", f"127.0.0.1:{http}")
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _command(venv: Path, folder: Path, grpc: int, http: int, metrics: int) -> list[str]:
    package = _site(venv) / "pytriton" / "tritonserver"
    backends, repository = folder / "backends", folder / "models"
    shutil.copytree(package / "backends" / "python", backends / "python")
    version = _site(venv).parent.name.removeprefix("python")
    shutil.copy(package / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
    command = [str(package / "bin" / "tritonserver"), f"--model-repository={repository}", f"--backend-directory={backends}"]
    for name, port in (("grpc", grpc), ("http", http), ("metrics", metrics)):
        command += [f"--{name}-address=127.0.0.1", f"--{name}-port={port}"]
    return [*command, "--model-control-mode=explicit", "--exit-timeout-secs=3"]


def _environment(venv: Path) -> dict[str, str]:
    """The backend's Python is the first on the path; it ignores PYTHONPATH."""
    library = _site(venv) / "nvidia_pytriton.libs"
    return {**os.environ, "LD_LIBRARY_PATH": str(library), "PATH": f"{venv / 'bin'}:{os.environ['PATH']}"}


def _site(venv: Path) -> Path:
    (site,) = venv.absolute().glob("lib/python3*/site-packages")
    return site


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait_until_ready(process: subprocess.Popen[bytes], http: int, log: Path) -> None:
    deadline = time.monotonic() + START_PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        with (
            contextlib.suppress(OSError, urllib.error.URLError),
            urllib.request.urlopen(f"http://127.0.0.1:{http}/v2/health/ready"),
        ):
            return
        time.sleep(0.1)
    raise SystemExit(f"The real Triton did not start:\n{log.read_text()[-4000:]}")
