"""What happens when a process dies or is told to end, each with a server of its own."""

import contextlib
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest
import tritonclient.grpc as triton
from calls import Stream, Streams, infer_request, is_final
from grpc_health.v1 import health_pb2, health_pb2_grpc
from http_calls import post
from openai_calls import CHAT, chat_body
from server import Server, running
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from octavo.serving.children import Programs

LONG = 1900
DEATH = "The engine of model 'tiny' has died. Its process was killed by signal SIGKILL."


@pytest.fixture
def own_server(repository: Path, tmp_path: Path) -> Iterator[Server]:
    with running(repository, "--model-control-mode=explicit", "--load-model=tiny", log=tmp_path / "log") as server:
        yield server


def test_an_engine_that_is_killed_fails_its_requests_and_comes_back(own_server: Server) -> None:
    server = own_server
    client = server.client()
    (engine,) = server.processes("engine")
    as_status = [("triton_grpc_error", "true")]
    with Stream(server.grpc) as stream, Stream(server.grpc, metadata=as_status) as strict, Streams(server.grpc, 64) as others:
        stream.send(infer_request(max_tokens=LONG))
        next(strict.send(infer_request(max_tokens=LONG)))
        for one in (stream, *others):
            next(one)
        killed = time.monotonic()
        engine.kill()
        for one in (stream, *others):
            message = next(message for message in one if message.error_message)
            assert message.error_message == DEATH
            assert is_final(message)
        assert strict.status() == (grpc.StatusCode.UNAVAILABLE, DEATH)
        assert time.monotonic() - killed < 20
        assert not client.is_server_ready()
        assert not client.is_model_ready("tiny")
        assert client.is_server_live()
        assert server.get("/v2/health/ready")[0] == 400
        message = next(stream.send(infer_request(request_id="too soon")))
        assert "has died" in message.error_message
        with pytest.raises(grpc.RpcError) as caught:
            client._client_stub.ModelInfer(infer_request(stream=False))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        server.wait_until(client.is_server_ready, "the engine to come back")
        assert is_final(stream.send(infer_request(request_id="again")).rest()[-1])
    assert server.metric("octavo:engine_restarts_total") == 1
    assert server.metric("nv_inference_request_failure", reason="BACKEND") >= 66
    server.wait_until_free()
    client.close()


def test_an_engine_that_is_stopped_is_ended_and_comes_back(repository: Path, tmp_path: Path) -> None:
    flags = ("--model-control-mode=explicit", "--load-model=tiny", "--engine-timeout-secs=4")
    with running(repository, *flags, log=tmp_path / "log") as server, Stream(server.grpc) as stream:
        (engine,) = server.processes("engine")
        next(stream.send(infer_request(max_tokens=LONG)))
        engine.suspend()
        message = next(message for message in stream if message.error_message)
        assert message.error_message == "The engine of model 'tiny' has died. It has not answered for 4 s."
        client = server.client()
        server.wait_until(client.is_server_ready, "the engine to come back")
        client.close()
        assert is_final(stream.send(infer_request()).rest()[-1])
        assert not engine.is_running()
        server.wait_until_free()


def test_a_front_end_that_is_stopped_is_ended_and_comes_back(repository: Path, tmp_path: Path) -> None:
    flags = ("--model-control-mode=explicit", "--load-model=tiny", "--engine-timeout-secs=4")
    with running(repository, *flags, log=tmp_path / "log") as server, Stream(server.grpc) as stream:
        (front_end,) = server.processes("frontend")
        next(stream.send(infer_request(max_tokens=LONG)))
        front_end.suspend()
        assert stream.status()[0] is grpc.StatusCode.UNAVAILABLE
        client = server.client()
        server.wait_until(lambda: ready(client), "another front end")
        client.close()
        assert not front_end.is_running()
        assert "Front end 0 has not answered for 4 s and is ended." in server.log.read_text()
        server.wait_until_free()


@pytest.fixture
def fragile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Front ends the first of which fails."""
    monkeypatch.setenv("OCTAVO_TEST_STARTED", str(tmp_path / "started"))
    return Programs(front_end="fragile_frontend")


def test_no_server_is_ready_before_a_front_end_listens(repository: Path, tmp_path: Path, fragile: Programs) -> None:
    with running(repository, "--model-control-mode=explicit", log=tmp_path / "log", programs=fragile) as server:
        assert server.get("/v2/health/live")[0] == 200
        assert "Front end 0 exited with code 1." in server.log.read_text()


@pytest.mark.long
def test_a_front_end_that_hangs_as_it_starts_is_ended(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fragile: Programs
) -> None:
    monkeypatch.setenv("OCTAVO_TEST_HANGS", "1")
    flags = ("--model-control-mode=explicit", "--load-model=tiny", "--engine-timeout-secs=12")
    with running(repository, *flags, log=tmp_path / "log", programs=fragile) as server, Stream(server.grpc) as stream:
        assert "Front end 0 has not answered for 12 s and is ended." in server.log.read_text()
        assert is_final(stream.send(infer_request()).rest()[-1])


def test_a_front_end_that_starts_again_listens_once_it_knows_the_models(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fragile: Programs
) -> None:
    reads = tmp_path / "reads"
    monkeypatch.setenv("OCTAVO_TEST_READS", str(reads))
    flags = ("--model-control-mode=explicit", "--load-model=tiny")
    with running(repository, *flags, log=tmp_path / "log", programs=fragile) as server:
        (front_end,) = server.processes("frontend")
        front_end.kill()
        server.wait_until(reads.exists, "the next one to read the tokenizer")
        host, _, port = server.grpc.rpartition(":")
        for _ in range(50):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((host, int(port)), timeout=5).close()
            time.sleep(0.01)
        reads.unlink()
        with contextlib.closing(server.client()) as client:
            server.wait_until(lambda: ready(client), "it to be ready")


def test_no_server_is_alive_whose_supervisor_hangs(repository: Path, tmp_path: Path) -> None:
    flags = ("--model-control-mode=explicit", "--load-model=tiny", "--engine-timeout-secs=5")
    with running(repository, *flags, log=tmp_path / "log") as server, grpc.insecure_channel(server.grpc) as channel:
        check, client = health_pb2_grpc.HealthStub(channel).Check, server.client()

        def alive() -> set[bool]:
            over_grpc = check(health_pb2.HealthCheckRequest(service="liveness")).status == health_pb2.HealthCheckResponse.SERVING
            return {over_grpc, client.is_server_live(), server.get("/v2/health/live")[0] == 200}

        server.wait_until(lambda: alive() == {True}, "the server to be alive")
        server.process.send_signal(signal.SIGSTOP)
        server.wait_until(lambda: alive() == {False}, "its death to be seen")
        server.process.send_signal(signal.SIGCONT)
        server.wait_until(lambda: alive() == {True}, "the server to be alive again")
        client.close()


def test_a_template_process_that_is_stopped_holds_nobody_else_up(own_server: Server) -> None:
    """One that idles is used again: what asks it waits, in a thread of its own."""
    assert post(own_server, CHAT, chat_body()).status == 200
    stopped = own_server.processes("template")
    assert stopped
    for process in stopped:
        process.suspend()
    replies: list[int] = []
    asking = threading.Thread(target=lambda: replies.append(post(own_server, CHAT, chat_body()).status))
    asking.start()
    time.sleep(0.5)  # for it to be read; were it too short, nothing would be held up yet
    assert own_server.get("/v2/health/live")[0] == 200
    assert not replies
    for process in stopped:
        process.resume()
    asking.join()
    assert replies == [200]


def ready(client: triton.InferenceServerClient) -> bool:
    with contextlib.suppress(InferenceServerException):
        return bool(client.is_server_ready())
    return False


def test_a_supervisor_that_is_killed_leaves_no_process_behind(own_server: Server) -> None:
    children = psutil.Process(own_server.process.pid).children(recursive=True)
    assert len(children) > 2  # and what renders templates
    with Stream(own_server.grpc) as stream:
        next(stream.send(infer_request(max_tokens=LONG)))
        own_server.process.kill()
        own_server.process.wait()
        own_server.wait_until(lambda: not any(map(alive, children)), "the children to end", seconds=10)


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_sigterm_drains(own_server: Server) -> None:
    server = own_server
    with Stream(server.grpc) as stream, Stream(server.grpc) as idle, grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(service_pb2.ServerReadyRequest()).ready
        next(stream.send(infer_request(max_tokens=1000, request_id="open")))
        next(idle.send(infer_request(max_tokens=1)))
        server.process.send_signal(signal.SIGTERM)
        server.wait_until(lambda: server.get("/v2/health/ready")[0] == 400, "readiness to go")
        with pytest.raises(grpc.RpcError) as caught:
            stub.ServerReady(service_pb2.ServerReadyRequest())
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, "Server exiting")
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(infer_request(stream=False))
        refusal = "GRPC server is shutting down and has stopped accepting new requests."
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, refusal)
        assert idle.status() == (grpc.StatusCode.UNAVAILABLE, refusal)
        stream.send(infer_request(request_id="late"))
        messages = []
        while not (messages and is_final(messages[-1]) and messages[-1].infer_response.id == "open"):
            messages.append(next(stream))
        assert [m.error_message for m in messages if m.infer_response.id == "late"] == [refusal]
        assert not any(m.error_message for m in messages if m.infer_response.id == "open")
        assert server.process.wait(timeout=60) == 0


def test_sigterm_under_load_finishes_what_was_begun_and_calls_nothing_cancelled(own_server: Server) -> None:
    server, ends = own_server, Counter[str]()
    begun, over = threading.Event(), threading.Event()

    def ask() -> None:
        with grpc.insecure_channel(server.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while not over.is_set():
                try:
                    stub.ModelInfer(infer_request(max_tokens=4, stream=False), timeout=60)
                    begun.set()
                except grpc.RpcError as error:
                    ends[error.code().name] += 1

    askers = [threading.Thread(target=ask) for _ in range(12)]
    with Streams(server.grpc, 8, max_tokens=200) as streams:
        for stream in streams:
            next(stream)
        for asker in askers:
            asker.start()
        assert begun.wait(60)
        server.process.send_signal(signal.SIGTERM)
        for stream in streams:
            *_, last = stream
            assert is_final(last)
            assert not last.error_message
        assert server.process.wait(timeout=60) == 0
        over.set()
        for asker in askers:
            asker.join()
    assert set(ends) == {"UNAVAILABLE"}


def test_sigterm_ends_what_takes_too_long(repository: Path, tmp_path: Path) -> None:
    flags = ("--model-control-mode=explicit", "--load-model=tiny", "--exit-timeout-secs=0.5")
    with running(repository, *flags, log=tmp_path / "log") as server, Stream(server.grpc) as stream:
        next(stream.send(infer_request(max_tokens=LONG, request_id="open")))
        told = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        messages = []
        with contextlib.suppress(grpc.RpcError):
            messages.extend(stream)
        assert messages[-1].error_message == "The server is shutting down and the time for open requests is over."
        assert server.process.wait(timeout=60) == 0
        assert time.monotonic() - told < 25


def test_a_second_signal_ends_at_once(own_server: Server) -> None:
    children = psutil.Process(own_server.process.pid).children(recursive=True)
    with Stream(own_server.grpc) as stream:
        next(stream.send(infer_request(max_tokens=LONG)))
        own_server.process.send_signal(signal.SIGINT)
        own_server.wait_until(lambda: own_server.get("/v2/health/ready")[0] == 400, "the drain to begin")
        own_server.process.send_signal(signal.SIGINT)
        assert own_server.process.wait(timeout=20) == 128 + signal.SIGINT
    own_server.wait_until(lambda: not any(map(alive, children)), "the children to end", seconds=10)


def test_a_load_that_fails_at_start_ends_the_server(repository: Path, tmp_path: Path) -> None:
    server = Server(repository, "--model-control-mode=explicit", "--load-model=broken", log=tmp_path / "log")
    assert server.process.wait(timeout=60) == 1
    assert "load failed for model 'broken'" in server.log.read_text()
    assert server.stop() == 1


@pytest.mark.parametrize(("strictness", "ready"), [("--strict-readiness", 400), ("--no-strict-readiness", 200)])
def test_unless_it_was_told_to_go_on(repository: Path, tmp_path: Path, strictness: str, ready: int) -> None:
    flags = ("--model-control-mode=explicit", "--load-model=broken", "--no-exit-on-error", strictness)
    with running(repository, *flags, log=tmp_path / "log") as server:
        assert server.get("/v2/health/live")[0] == 200
        assert server.get("/v2/health/ready")[0] == ready


def test_sockets_are_private_and_gone_at_the_end(
    repository: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = tmp_path_factory.getbasetemp()
    monkeypatch.setenv("TMPDIR", str(short))
    with running(repository, "--model-control-mode=explicit", "--http-address=0.0.0.0", log=tmp_path / "log") as server:
        (directory,) = short.glob("octavo-*")
        assert directory.stat().st_mode & 0o077 == 0
        assert {path.name.partition("-")[0] for path in directory.iterdir()} == {"engines", "front", "stacks"}
        assert server.stop() == 0
        assert not directory.exists()
        warnings = [line for line in server.log.read_text().splitlines() if "WARNING" in line]
    assert len(warnings) == 1
    assert warnings[0].endswith("Anybody who can reach the http port may use it: no credentials are configured.")


def test_a_temporary_folder_with_a_long_name_is_not_used(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    with running(repository, "--model-control-mode=explicit", log=tmp_path / "log") as server:
        assert server.get("/v2/health/ready")[0] == 200
        assert not list(long.iterdir())


def test_a_taken_port_ends_the_server_with_its_name(repository: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        server = Server(repository, "--grpc-port", port, log=tmp_path / "log")
        assert server.process.wait(timeout=60) == 1
    assert f"The gRPC port {port} of address 127.0.0.1 cannot be used" in server.log.read_text()
    server.stop()


def test_a_signal_while_loading_ends_well(repository: Path, tmp_path: Path) -> None:
    server = Server(repository, "--model-control-mode=explicit", "--load-model=tiny", log=tmp_path / "log")
    server.wait_until(lambda: bool(server.processes("front")), "the front end to start")
    assert server.stop() == 0


@pytest.mark.long
def test_an_engine_that_dies_too_often_ends_the_server(own_server: Server) -> None:
    deadline = time.monotonic() + 150
    while own_server.process.poll() is None and time.monotonic() < deadline:
        for engine in own_server.processes("engine"):
            engine.kill()
        time.sleep(0.2)
    assert own_server.process.wait(timeout=60) == 1
    assert "dies too often" in own_server.log.read_text()
