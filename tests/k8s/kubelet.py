"""What a kubelet does with one container: starts it, probes it, ends it. Time in manifests may pass faster than time does.

The container is a process of this machine with the manifest's command, arguments, ports and environment. Two things are the
machine's: what is mounted lies in folders of ours, and a pod's address is one of the loopback interface that nobody else uses, to
which the server is bound. Timeouts of probes pass no faster.
"""

import http.client
import os
import random
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SPEED = 10.0
_SERVICES = ("http", "grpc", "metrics")


class Container:
    """One run of a container. ``at`` is where a port of it is."""

    def __init__(self, manifest: dict[str, Any], mounts: Mapping[str, Path], log: Path) -> None:
        environment = {one["name"]: one["value"] for one in manifest["env"]}
        words = [re.sub(r"\$\((\w+)\)", lambda name: environment[name[1]], word) for word in manifest["args"]]
        command = [sys.executable, "-m", *manifest["command"]]
        command += [_mounted(word, mounts) for word in words]
        self._host = ".".join(["127", *(str(random.SystemRandom().randrange(1, 255)) for _ in range(3))])
        command += [f"--{service}-address={self._host}" for service in _SERVICES]
        ours = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        with log.open("a") as lines:
            self.process = subprocess.Popen(
                command, env={**ours, "OMP_NUM_THREADS": "1", **environment}, stdout=lines, stderr=lines, text=True
            )

    def at(self, port: int) -> str:
        return f"{self._host}:{port}"

    def passes(self, probe: dict[str, Any]) -> bool:
        """One probe, with its own timeout."""
        handler = probe.get("httpGet") or probe["grpc"]
        address = self.at(handler["port"])
        return _get(address, handler, probe) if "httpGet" in probe else _check(address, handler, probe)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def _mounted(word: str, mounts: Mapping[str, Path]) -> str:
    for path, folder in mounts.items():
        word = word.replace(path, str(folder))
    return word


def _get(address: str, handler: dict[str, Any], probe: dict[str, Any]) -> bool:
    connection = http.client.HTTPConnection(address, timeout=probe["timeoutSeconds"])
    if handler["scheme"] == "HTTPS":  # of whoever signed the certificate, a kubelet asks nothing
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(address, timeout=probe["timeoutSeconds"], context=context)
    try:
        connection.request("GET", handler["path"])
        return 200 <= connection.getresponse().status < 400
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _check(address: str, handler: dict[str, Any], probe: dict[str, Any]) -> bool:
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        request = health_pb2.HealthCheckRequest(service=handler.get("service", ""))
        try:
            return bool(check(request, timeout=probe["timeoutSeconds"]).status == health_pb2.HealthCheckResponse.SERVING)
        except grpc.RpcError:
            return False


class Kubelet:
    """Keeps one container running by its probes. ``ready`` is what its Service would go by; ``restarts`` why it was ended.

    A second of the manifest takes 1 / ``speed`` seconds.
    """

    def __init__(self, manifest: dict[str, Any], mounts: Mapping[str, Path], log: Path, grace: float, speed: float = SPEED) -> None:
        self._manifest, self._mounts, self._log, self._grace, self._speed = manifest, mounts, log, grace, speed
        self.ready, self.restarts = False, list[str]()
        self.readiness = [False]
        self.container = Container(manifest, mounts, log)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait_until(self, holds: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert len(self.restarts) < 5, f"{self.restarts}\n{self._log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"waited {seconds} s in vain for: {what}\n{self._log.read_text()[-3000:]}"
            time.sleep(0.02)

    def delete(self, removed: Callable[[], None]) -> tuple[int, float]:
        """End the pod as the API server asks for it: the exit code, and the seconds from SIGTERM to the end.

        ``removed`` is called once the preStop hook is over: by then no balancer knows the pod.
        """
        self._ending.set()
        self._thread.join()
        time.sleep(self._manifest["lifecycle"]["preStop"]["sleep"]["seconds"] / self._speed)
        removed()
        return self._terminate(self._grace - self._manifest["lifecycle"]["preStop"]["sleep"]["seconds"])

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        self.container.kill()

    def _terminate(self, seconds: float) -> tuple[int, float]:
        told = time.monotonic()
        self.container.process.send_signal(signal.SIGTERM)
        try:
            self.container.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.container.process.kill()
        return self.container.process.wait(), time.monotonic() - told

    def _run(self) -> None:
        while not self._ending.is_set():
            reason = self._failed("startupProbe", until_success=True) or self._watch()
            self._set_ready(False)
            if reason:
                self.restarts.append(reason)
                self._terminate(self._grace / self._speed)
                self.container.kill()
                self.container = Container(self._manifest, self._mounts, self._log)

    def _watch(self) -> str | None:
        """Why a container that has started has to be ended; None when the pod is to end."""
        over = threading.Event()
        readiness = threading.Thread(target=self._follow_readiness, args=(over,), daemon=True)
        readiness.start()
        reason = self._failed("livenessProbe", until_success=False)
        over.set()
        readiness.join()
        return reason

    def _follow_readiness(self, over: threading.Event) -> None:
        probe, failures = self._manifest["readinessProbe"], 0
        while not over.wait(probe["periodSeconds"] / self._speed):
            failures = 0 if self.container.passes(probe) else failures + 1
            if failures == 0 or failures >= probe["failureThreshold"]:
                self._set_ready(failures == 0)

    def _failed(self, name: str, until_success: bool) -> str | None:
        """Probe until it has failed too often, or else has succeeded once or the pod is to end."""
        probe, failures = self._manifest[name], 0
        while not self._ending.is_set():
            if self.container.process.poll() is not None:
                return f"exit code {self.container.process.returncode}"
            passed = self.container.passes(probe)
            if passed and until_success:
                return None
            failures = 0 if passed else failures + 1
            if failures >= probe["failureThreshold"]:
                return name
            self._ending.wait(probe["periodSeconds"] / self._speed)
        return None

    def _set_ready(self, ready: bool) -> None:
        self.ready = ready
        if self.readiness[-1] != ready:
            self.readiness.append(ready)
