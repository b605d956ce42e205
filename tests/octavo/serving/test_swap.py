"""Reloads on a device that has no room for the old and the new together."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc as triton
from calls import Stream, infer_request, is_final
from server import Server, running
from tiny import write_model

from octavo.config import EngineConfig, WeightsFormat
from octavo.engine.messages import EngineInfo
from octavo.serving.budget import Tenant, fits_beside

UNLUCKY = 13
GPU = EngineInfo(64, 256, 16, 4, "float32", [], weights_bytes=100, max_logprobs=0, device="cuda:0", device_bytes=1000)


@pytest.fixture(scope="module")
def crowded(snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("crowded")
    write_model(folder / "models", "model", snapshot)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("OCTAVO_TEST_DEVICE", str(folder / "device"))
        flags = ("--model-control-mode=explicit", "--load-model=model")
        with running(folder / "models", *flags, log=folder / "log", module="crowded_server") as server:
            yield server


@pytest.fixture
def client(crowded: Server) -> Iterator[triton.InferenceServerClient]:
    with crowded.client() as connected:
        yield connected


def set_up(crowded: Server, **changes: object) -> None:
    path = crowded.log.parent / "models" / "model" / "1" / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(client: triton.InferenceServerClient, prompt: str = "x" * 100) -> tuple[grpc.StatusCode, str]:
    """Why a prompt is not answered."""
    try:
        client._client_stub.ModelInfer(infer_request(prompt, model="model", stream=False, max_tokens=1))
    except grpc.RpcError as error:
        return error.code(), str(error.details())
    return grpc.StatusCode.OK, ""


def test_the_old_drains_and_then_makes_way(crowded: Server, client: triton.InferenceServerClient) -> None:
    set_up(crowded, max_model_len=64)
    with Stream(crowded.grpc) as stream:
        next(stream.send(infer_request(max_tokens=300, model="model")))
        load = threading.Thread(target=client.load_model, args=["model"])
        load.start()
        crowded.wait_until(lambda: refused(client, "x")[0] is grpc.StatusCode.UNAVAILABLE, "new requests to be refused")
        assert "is being replaced" in refused(client, "x")[1]
        assert is_final(stream.rest()[-1])
    load.join()
    assert refused(client)[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert "at most 64" in refused(client)[1]
    assert client.is_server_ready()


def test_what_its_files_say_cannot_be_is_not_even_tried(crowded: Server, client: triton.InferenceServerClient) -> None:
    (before,) = crowded.processes("engine")
    set_up(crowded, max_model_len=10**6)
    with pytest.raises(Exception, match="load failed for model 'model': max_model_len"):
        client.load_model("model")
    assert [engine.pid for engine in crowded.processes("engine")] == [before.pid]
    assert refused(client, "x") == (grpc.StatusCode.OK, "")


@pytest.mark.long
def test_the_old_comes_back_if_the_new_cannot(crowded: Server, client: triton.InferenceServerClient) -> None:
    set_up(crowded, max_model_len=32, seed=UNLUCKY)
    with pytest.raises(Exception, match="The device is out of luck"):
        client.load_model("model")
    crowded.wait_until(lambda: refused(client, "x") == (grpc.StatusCode.OK, ""), "the old to serve")
    assert "at most 64" in refused(client)[1]
    assert client.is_server_ready()


def tenant(**settings: object) -> Tenant:
    return Tenant(config(**settings), GPU)


def config(**settings: object) -> EngineConfig:
    return EngineConfig(
        name="m", version=1, weights="", weights_format=WeightsFormat.DUMMY, tokenizer="", **{"device": "auto", **settings}
    )


@pytest.mark.parametrize(
    ("fresh", "replaced", "others", "fits"),
    [
        (config(), tenant(), [], False),
        (config(gpu_memory_utilization=0.5), tenant(gpu_memory_utilization=0.5), [], True),
        (config(gpu_memory_utilization=0.4), tenant(gpu_memory_utilization=0.4), [tenant(gpu_memory_utilization=0.4)], False),
        (config(kv_cache_memory_bytes=400), tenant(kv_cache_memory_bytes=400), [], True),
        (config(kv_cache_memory_bytes=401), tenant(kv_cache_memory_bytes=400), [], False),
        (config(device="cuda:1"), tenant(), [], True),
        (config(), Tenant(config(), EngineInfo(64, 256, 16, 4, "float32", [], 100, 0)), [], True),
    ],
)
def test_what_fits_beside_what(fresh: EngineConfig, replaced: Tenant, others: list[Tenant], fits: bool) -> None:
    assert fits_beside([fresh], replaced, [replaced, *others]) is fits
