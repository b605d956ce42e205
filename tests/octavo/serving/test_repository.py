"""Loads and unloads at run time, in Triton's wire form and in the KServe SDK's, with Triton's texts."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import psutil
import pytest
import tritonclient.grpc as triton
from calls import Stream, infer_request, is_final
from server import Server, running
from test_core import refusal
from tiny import write_model
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from octavo.serving.children import Programs


def index(client: triton.InferenceServerClient) -> dict[tuple[str, str], tuple[str, str]]:
    return {(entry.name, entry.version): (entry.state, entry.reason) for entry in client.get_model_repository_index().models}


def test_the_index_names_what_is_there(client: triton.InferenceServerClient) -> None:
    entries = index(client)
    assert entries["tiny", "1"] == ("READY", "")
    assert entries["two", ""] == ("", "")
    assert entries["broken", ""] == ("", "")


def test_all_versions_of_a_policy_serve_and_the_highest_is_the_default(client: triton.InferenceServerClient) -> None:
    client.load_model("two")
    assert list(client.get_model_metadata("two").versions) == ["1", "3"]
    assert list(client.get_model_metadata("two", "1").versions) == ["1"]
    assert client.is_model_ready("two", "1")
    assert client.is_model_ready("two", "3")
    assert not client.is_model_ready("two", "2")
    client.unload_model("two")


def test_a_load_with_a_configuration(client: triton.InferenceServerClient) -> None:
    config = {"backend": "vllm", "version_policy": {"specific": {"versions": [1]}}}
    client.load_model("two", config=json.dumps(config))
    assert list(client.get_model_metadata("two").versions) == ["1"]
    assert client.get_model_config("two").config.backend == "vllm"
    client.unload_model("two")


def test_what_cannot_be_loaded(client: triton.InferenceServerClient) -> None:
    load = client.load_model
    unknown = "failed to load 'nope', failed to poll from model repository"
    assert refusal(load, "nope") == ("StatusCode.INTERNAL", unknown)
    for name in ("", "../tiny", "tiny/1", "..", "."):
        code, text = refusal(load, name)
        assert (code, text) == ("StatusCode.INTERNAL", f"failed to load '{name}', failed to poll from model repository")
    code, text = refusal(lambda: load("two", config="{"))
    assert (code, text) == ("StatusCode.INTERNAL", "failed to load 'two', failed to poll from model repository")
    assert client.is_server_ready()


def test_load_parameters(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        load = service_pb2_grpc.GRPCInferenceServiceStub(channel).RepositoryModelLoad
        for key, value, text in [
            ("foo", {"bool_param": True}, "unrecognized load parameter 'foo'."),
            ("config", {"bool_param": True}, "invalid value type for load parameter 'config', expected string_param."),
        ]:
            parameters = {key: service_pb2.ModelRepositoryParameter(**value)}
            with pytest.raises(grpc.RpcError) as caught:
                load(service_pb2.RepositoryModelLoadRequest(model_name="two", parameters=parameters))
            assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, text)


def test_one_repository_only(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        calls = [
            lambda: stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(repository_name="x")),
            lambda: stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(repository_name="x", model_name="two")),
        ]
        for call in calls:
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert caught.value.details() == "'repository_name' specification is not supported"


def test_a_failed_load_says_why_and_costs_readiness_until_it_is_taken_back(
    server: Server, client: triton.InferenceServerClient
) -> None:
    code, text = refusal(client.load_model, "broken_engine")
    assert code == "StatusCode.INVALID_ARGUMENT"
    assert text.startswith("load failed for model 'broken_engine': version 1 is at UNAVAILABLE state: Internal: ")
    assert text.endswith(";\n")
    assert "max_model_len" in text
    state, reason = index(client)["broken_engine", "1"]
    assert state == "UNAVAILABLE"
    assert "max_model_len" in reason
    assert not client.is_server_ready()
    assert server.get("/v2/health/ready")[0] == 400
    assert client.is_model_ready("tiny")
    client.unload_model("broken_engine")
    assert client.is_server_ready()


@pytest.mark.parametrize(("name", "hint"), [("broken", "max_model_len"), ("broken_tokenizer", "tokenizer.json")])
def test_other_failures(client: triton.InferenceServerClient, name: str, hint: str) -> None:
    code, text = refusal(client.load_model, name)
    assert code == "StatusCode.INVALID_ARGUMENT"
    assert text.startswith(f"load failed for model '{name}': ")
    assert hint in text
    assert "/" not in text
    assert name in {entry for entry, _ in index(client)}
    assert not client.is_server_ready()
    client.unload_model(name)
    assert client.is_server_ready()


def test_a_corrupt_header_of_weights_fails_its_load_alone(
    server: Server, client: triton.InferenceServerClient, repository: Path
) -> None:
    weights = repository.parent / "corrupt"
    shutil.copytree(json.loads((repository / "tiny" / "1" / "model.json").read_text())["model"], weights)
    write_model(repository, "corrupt", weights)
    file = weights / "model.safetensors"
    whole = file.read_bytes()
    for header in (b"\xff" * 8, (10**6).to_bytes(8, "little"), whole[:8] + b"}" + whole[9:], b""):
        file.write_bytes(header + whole[len(header) :] if header else b"")
        with pytest.raises(InferenceServerException, match=r"^\[StatusCode.INVALID_ARGUMENT\] .*'model.safetensors'"):
            client.load_model("corrupt")
    file.write_bytes(whole)
    client.load_model("corrupt")
    assert client.is_model_ready("corrupt")
    assert client.is_model_ready("tiny")
    client.unload_model("corrupt")
    server.wait_until(lambda: len(server.processes("engine")) == 1, "its engine to go")
    shutil.rmtree(repository / "corrupt")


def test_an_unload_lets_open_requests_finish_and_takes_no_new_ones(server: Server, client: triton.InferenceServerClient) -> None:
    client.load_model("other")
    assert client.is_model_ready("other")
    assert index(client)["other", "1"] == ("READY", "")
    with Stream(server.grpc) as stream:
        next(stream.send(infer_request(max_tokens=1000, request_id="open", model="other")))
        client.unload_model("other")
        assert not client.is_model_ready("other")
        assert index(client)["other", "1"] == ("UNLOADING", "")
        assert client.is_server_ready()
        stream.send(infer_request(request_id="late", model="other"))
        stream.send(infer_request(request_id="named", model="other", version="1"))
        messages = stream.rest()
    errors = {m.infer_response.id: m.error_message for m in messages if m.error_message}
    assert errors == {
        "late": "Request for unknown model: 'other' has no available versions",
        "named": "Request for unknown model: 'other' version 1 is not at ready state",
    }
    assert [is_final(m) for m in messages if m.infer_response.id == "open"][-1]
    server.wait_until(lambda: index(client)["other", "1"] == ("UNAVAILABLE", "unloaded"), "the unload")
    assert len(server.processes("engine")) == 1
    gone = "Request for unknown model: 'other' has no available versions"
    assert refusal(client.get_model_metadata, "other") == ("StatusCode.NOT_FOUND", gone)


def test_a_reload_finishes_what_the_old_engine_has_begun(server: Server, client: triton.InferenceServerClient) -> None:
    with Stream(server.grpc) as stream:
        next(stream.send(infer_request(max_tokens=1900, request_id="old")))
        (old,) = server.processes("engine")
        client.load_model("tiny")
        assert client.is_model_ready("tiny")
        stream.send(infer_request(request_id="new"))
        messages = stream.rest()
    assert sum(is_final(m) for m in messages) == 2
    assert not any(m.error_message for m in messages)
    server.wait_until(lambda: old not in server.processes("engine"), "the old engine to go")


def test_two_loads_of_one_model_at_once(server: Server) -> None:
    clients = [server.client() for _ in range(2)]
    threads = [threading.Thread(target=client.load_model, args=("other",)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clients[0].is_model_ready("other")
    clients[0].unload_model("other")
    server.wait_until(lambda: len(server.processes("engine")) == 1, "the engines to go")
    for client in clients:
        client.close()


def test_unloads_are_idempotent(client: triton.InferenceServerClient) -> None:
    client.unload_model("nope")
    client.unload_model("other")
    client.unload_model("other")


KSERVE = """
import sys
import grpc
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb, grpc_predict_v2_pb2_grpc as stubs

with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = stubs.GRPCInferenceServiceStub(channel)
    stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="other"))
    assert stub.ModelReady(pb.ModelReadyRequest(name="other")).ready
    stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="other"))
    assert not stub.ModelReady(pb.ModelReadyRequest(name="other")).ready
"""


def test_the_kserve_sdk_loads_and_unloads(server: Server) -> None:
    # Apart, because its messages cannot be imported beside tritonclient's.
    done = subprocess.run([sys.executable, "-c", KSERVE, server.grpc], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_ten_loads_and_unloads_leave_no_memory_behind(repository: Path, tmp_path: Path) -> None:
    """Of those that stay; an engine's own goes with its process, so one that loads nothing will do."""
    flags, light = ("--model-control-mode=explicit", "--load-model=tiny"), Programs(engine="octavo.bench.source")
    with running(repository, *flags, log=tmp_path / "log", programs=light) as server, server.client() as client:
        lasting = [psutil.Process(server.process.pid), *server.processes("frontend")]

        def cycle() -> int:
            client.load_model("other")
            client.unload_model("other")
            server.wait_until(lambda: index(client)["other", "1"][0] == "UNAVAILABLE", "the unload")
            return sum(process.memory_full_info().pss for process in lasting)

        warm = [cycle() for _ in range(3)][-1]
        grown = min([cycle() for _ in range(7)][-3:]) - warm
        assert grown < 8 * 2**20
        assert len(server.processes("engine")) == 1


def test_mode_none_loads_everything_and_refuses_to_change(repository: Path, snapshot: Path, tmp_path: Path) -> None:
    with running(snapshot, "--model-name=bare", log=tmp_path / "log") as server:
        client = server.client()
        assert client.is_model_ready("bare", "1")
        refused = ("StatusCode.UNAVAILABLE", "explicit model load / unload is not allowed if polling is enabled")
        assert refusal(client.load_model, "bare") == refused
        assert refusal(client.unload_model, "bare") == refused
        client.close()
