"""A repository that is followed: what is put there is served, what is changed is served anew, what cannot be changes nothing."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc as triton
from calls import Stream, infer_request, is_final
from server import Server, running
from test_core import refusal
from tiny import write_model


@pytest.fixture(scope="module")
def folder(snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("followed")
    write_model(folder, "first", snapshot)
    return folder


@pytest.fixture(scope="module")
def followed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ("--model-control-mode=poll", "--repository-poll-secs=0.2")
    with running(folder, *flags, log=tmp_path_factory.mktemp("log") / "log") as server:
        yield server


@pytest.fixture
def client(followed: Server) -> Iterator[triton.InferenceServerClient]:
    with followed.client() as connected:
        yield connected


def set_up(folder: Path, name: str, **changes: object) -> None:
    """Change the settings of a model, all at once."""
    path = folder / name / "1" / "model.json"
    path.with_suffix(".new").write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    path.with_suffix(".new").rename(path)


def refused(client: triton.InferenceServerClient) -> str:
    """Why a prompt of 100 tokens is not answered, nothing if it is."""
    try:
        client._client_stub.ModelInfer(infer_request("x" * 100, model="first", stream=False, max_tokens=1))
    except grpc.RpcError as error:
        return str(error.details())
    return ""


def test_a_changed_model_is_served_anew_while_its_open_requests_go_on(
    followed: Server, folder: Path, client: triton.InferenceServerClient
) -> None:
    with Stream(followed.grpc) as stream:
        next(stream.send(infer_request(max_tokens=400, model="first")))
        set_up(folder, "first", max_model_len=64)
        followed.wait_until(lambda: "at most 64" in refused(client), "the new settings to hold")
        assert is_final(stream.rest()[-1])


def test_a_change_that_cannot_be_served_leaves_the_old(
    followed: Server, folder: Path, client: triton.InferenceServerClient
) -> None:
    set_up(folder, "first", max_modle_len=64)
    followed.wait_until(lambda: "goes on serving" in followed.log.read_text(), "the load to fail")
    assert client.is_server_ready()
    assert client._client_stub.ModelInfer(infer_request(model="first", stream=False)).model_version == "1"


@pytest.mark.long
def test_models_come_and_go(followed: Server, folder: Path, snapshot: Path, client: triton.InferenceServerClient) -> None:
    write_model(folder.parent / "aside", "second", snapshot)
    (folder.parent / "aside" / "second").rename(folder / "second")
    followed.wait_until(lambda: client.is_model_ready("second"), "the new model to be served")
    shutil.rmtree(folder / "second")
    followed.wait_until(lambda: not client.is_model_ready("second"), "the model that is gone to be unloaded")
    assert client.is_model_ready("first")
    assert client.is_server_ready()


def test_nobody_else_loads(client: triton.InferenceServerClient) -> None:
    text = "explicit model load / unload is not allowed if polling is enabled"
    assert refusal(client.load_model, "first") == ("StatusCode.UNAVAILABLE", text)
    assert refusal(client.unload_model, "first") == ("StatusCode.UNAVAILABLE", text)
