"""A real server in processes of its own, started as a user starts it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import tritonclient.grpc as triton

from octavo.serving.children import PROGRAMS, Programs

START_PATIENCE = 120.0


class Server:
    """One running ``octavo serve`` on free ports of this machine. ``programs``: what its children run, if not Octavo's own."""

    def __init__(self, repository: Path, *flags: str, log: Path, programs: Programs = PROGRAMS) -> None:
        self.log = log
        module = ["octavo"] if programs is PROGRAMS else ["server_of", *programs]
        command = [sys.executable, "-m", *module, "serve", "--model-repository", str(repository)]
        for port in ("grpc", "http", "metrics"):
            command += [f"--{port}-address", "127.0.0.1", f"--{port}-port", "0"]
        path = os.pathsep.join(folder for folder in sys.path if folder)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        self.process = subprocess.Popen(
            [*command, *flags], stdout=subprocess.PIPE, stderr=log.open("w"), text=True, env=environment
        )
        self.ready_line = ""
        self.grpc = self.http = self.metrics = ""

    def wait_until_ready(self) -> "Server":
        assert self.process.stdout is not None
        self.ready_line = self.process.stdout.readline()
        found = re.fullmatch(r"octavo ready grpc=(\S+) http=(\S+) metrics=(\S+)\n", self.ready_line)
        assert found, f"{self.ready_line!r}\n{self.log.read_text()}"
        self.grpc, self.http, self.metrics = found.groups()
        return self

    def client(self) -> triton.InferenceServerClient:
        return triton.InferenceServerClient(self.grpc)

    def get(self, path: str) -> tuple[int, str]:
        address = self.metrics if path == "/metrics" else self.http
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of ``name`` that carry ``labels``."""
        _, text = self.get("/metrics")
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        lines = [line for line in text.splitlines() if re.match(rf"{re.escape(name)}[{{ ]", line)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(want in line for want in wanted))

    def in_flight(self) -> float:
        """Requests that run or wait, of one reading."""
        _, text = self.get("/metrics")
        return sum(float(count) for count in re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*\} (.+)$", text, re.MULTILINE))

    def processes(self, name: str) -> list[psutil.Process]:
        """The children, and theirs, that call themselves ``octavo-<name>``."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name().startswith(f"octavo-{name}"[:15]):
                    found.append(child)
        return found

    def wait_until(self, holds: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"waited {seconds} s in vain for: {what}\n{self.log.read_text()[-3000:]}"
            time.sleep(0.02)

    def wait_until_free(self) -> None:
        """Wait until no request runs or waits and no page is in use."""
        names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
        self.wait_until(lambda: not any(self.metric(name) for name in names), "all pages to be free")

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


@contextlib.contextmanager
def running(repository: Path, *flags: str, log: Path, programs: Programs = PROGRAMS) -> Iterator[Server]:
    """A server that is ready and does not outlive the block."""
    server = Server(repository, *flags, log=log, programs=programs)
    try:
        yield server.wait_until_ready()
    finally:
        if server.process.poll() is None:
            server.process.terminate()
            try:
                server.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                server.process.kill()
                server.process.wait()
