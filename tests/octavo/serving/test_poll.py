"""A repository that is followed, on a device with room for one engine: what changes is served anew, what cannot be changes nothing.

A device with room for two is in ``test_repository``, a repository without a server in ``test_poller``.
"""

import json
import re
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

from octavo.serving.children import Programs

UNLUCKY = 13  # the seed of an engine that cannot start, see ``crowded_engine``


@pytest.fixture(scope="module")
def folder(snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A link to the folder of models, as git-sync makes it."""
    parent = tmp_path_factory.mktemp("followed")
    write_model(parent / "old", "first", snapshot)
    (parent / "current").symlink_to("old")
    return parent / "current"


@pytest.fixture(scope="module")
def followed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    aside = tmp_path_factory.mktemp("aside")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCTAVO_TEST_DEVICE", str(aside / "device"))
        flags = ("--model-control-mode=poll", "--repository-poll-secs=0.2")
        with running(folder, *flags, log=aside / "log", programs=Programs(engine="crowded_engine")) as server:
            yield server


@pytest.fixture
def client(followed: Server) -> Iterator[triton.InferenceServerClient]:
    with followed.client() as connected:
        yield connected


def set_up(folder: Path, **changes: object) -> None:
    """Change the settings of the first model, all at once; None takes one away."""
    path = folder / "first" / "1" / "model.json"
    changed = {**json.loads(path.read_text()), **changes}
    aside = folder.with_name("model.json")  # where nobody looks
    aside.write_text(json.dumps({name: value for name, value in changed.items() if value is not None}))
    aside.rename(path)


def refused(client: triton.InferenceServerClient, prompt: str = "x" * 100) -> str:
    """Why a prompt is not answered, nothing if it is."""
    try:
        client._client_stub.ModelInfer(infer_request(prompt, model="first", stream=False, max_tokens=1), timeout=5)
    except grpc.RpcError as error:
        return str(error.details())
    return ""


def wait_for_failure(followed: Server, why: str) -> None:
    followed.wait_until(
        lambda: re.search(f"{why}\\s+What served before goes on serving", followed.log.read_text()), "a load to fail"
    )


def test_a_changed_model_takes_the_place_of_the_old_once_its_requests_have_ended(
    followed: Server, folder: Path, client: triton.InferenceServerClient
) -> None:
    with Stream(followed.grpc) as stream:
        next(stream.send(infer_request(max_tokens=300, model="first")))
        (engine,) = followed.processes("engine")
        engine.suspend()  # for the request to last until it is over here
        set_up(folder, max_model_len=64)
        followed.wait_until(lambda: "is being replaced" in refused(client, "x"), "new requests to be refused")
        engine.resume()
        assert is_final(stream.rest()[-1])
    followed.wait_until(lambda: "at most 64" in refused(client), "the new settings to hold")
    assert client.is_server_ready()


def test_a_change_that_cannot_be_read_or_served_is_not_even_tried(
    followed: Server, folder: Path, client: triton.InferenceServerClient
) -> None:
    (before,) = followed.processes("engine")
    set_up(folder, max_modle_len=64)
    wait_for_failure(followed, "the nearest known one is 'max_model_len'.")
    set_up(folder, max_modle_len=None, max_model_len=1_000_000)
    wait_for_failure(followed, "is more than the 2048 tokens of the model itself.")
    assert [engine.pid for engine in followed.processes("engine")] == [before.pid]
    assert "at most 64" in refused(client)
    assert client.is_server_ready()


def test_a_link_that_is_replaced_is_followed(followed: Server, folder: Path, client: triton.InferenceServerClient) -> None:
    old = folder.resolve()
    shutil.copytree(folder, folder.with_name("new"))
    (folder.with_name("new") / "first" / "1" / "model.json").write_text(
        (old / "first" / "1" / "model.json").read_text().replace("1000000", "48")
    )
    folder.with_name("next").symlink_to("new")
    folder.with_name("next").replace(folder)
    shutil.rmtree(old)
    followed.wait_until(lambda: "at most 48" in refused(client), "the models behind the link to be served")
    assert client.is_server_ready()


def test_nobody_else_loads(client: triton.InferenceServerClient) -> None:
    text = "explicit model load / unload is not allowed if polling is enabled"
    assert refusal(client.load_model, "first") == ("StatusCode.UNAVAILABLE", text)
    assert refusal(client.unload_model, "first") == ("StatusCode.UNAVAILABLE", text)


@pytest.mark.long
def test_the_old_comes_back_if_the_new_cannot_start(followed: Server, folder: Path, client: triton.InferenceServerClient) -> None:
    set_up(folder, max_model_len=32, seed=UNLUCKY)
    wait_for_failure(followed, "The device is out of luck.;")
    assert "at most 48" in refused(client)
    assert client.is_server_ready()


@pytest.mark.long
def test_models_come_and_go(followed: Server, folder: Path, snapshot: Path, client: triton.InferenceServerClient) -> None:
    shutil.rmtree(folder / "first")
    followed.wait_until(lambda: not client.is_model_ready("first"), "the model that is gone to be unloaded")
    followed.wait_until(lambda: not followed.processes("engine"), "its engine to end")
    write_model(folder.parent / "aside", "second", snapshot)
    (folder.parent / "aside" / "second").rename(folder / "second")
    followed.wait_until(lambda: client.is_model_ready("second"), "the new model to be served")
    assert client.is_server_ready()
