"""The repository: index, load and unload with their mistakes, readiness after a failed load, statistics."""

import time
from functools import partial
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from conformance.answers import Data
from conformance.cases import Case
from conformance.cases.infer import infer
from conformance.cases.streaming import llm
from conformance.client import Client

PATIENCE = 30.0
index = pb.RepositoryIndexRequest


def _load(name: str, **parameters: Any) -> Case:
    wanted = {key: pb.ModelRepositoryParameter(**value) for key, value in parameters.items()}
    return partial(
        Client.call, rpc="RepositoryModelLoad", request=pb.RepositoryModelLoadRequest(model_name=name, parameters=wanted)
    )


def _unload(name: str) -> Case:
    return partial(Client.call, rpc="RepositoryModelUnload", request=pb.RepositoryModelUnloadRequest(model_name=name))


def _file(data: bytes) -> dict[str, Any]:
    return {"file:1/model.json": {"bytes_param": data}}


def _call(rpc: str, request: Any) -> Case:
    return partial(Client.call, rpc=rpc, request=request)


def _settled(client: Client) -> Data:
    """The index once nothing is being unloaded any more."""
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = client.call("RepositoryIndex", index())
        models = answer.get("reply", {}).get("models", {})
        if all(entry.get("state") != "UNLOADING" for entry in models.values()) or time.monotonic() > deadline:
            return answer
        time.sleep(0.1)


def _counted(client: Client) -> Data:
    """By how much the counts of a model's statistics grow with one answered and one refused request."""
    before = _counts(client)
    client.stream(llm())
    client.stream(infer("llm"))
    after = _counts(client)
    return {name: after[name] - before[name] for name in after}


def _counts(client: Client) -> dict[str, int]:
    answer = client.call("ModelStatistics", pb.ModelStatisticsRequest(name="llm"))
    (model,) = answer["reply"]["model_stats"]
    counts = {name: int(model.get(name, 0)) for name in ("inference_count", "execution_count")}
    return counts | {name: int(timing.get("count", 0)) for name, timing in model["inference_stats"].items()}


def _shape(client: Client, **wanted: str) -> Data:
    """The statistics with their numbers blanked."""
    return _blank(client.call("ModelStatistics", pb.ModelStatisticsRequest(**wanted)))


def _blank(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _blank(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_blank(item) for item in data]
    return "<number>" if isinstance(data, str) and data.isdecimal() else data


CASES: dict[str, Case] = {
    "index": _call("RepositoryIndex", index()),
    "index of what is ready": _call("RepositoryIndex", index(ready=True)),
    "index of a named repository": _call("RepositoryIndex", index(repository_name="nope")),
    "load": _load("spare"),
    "load again": _load("spare"),
    "index after load": _call("RepositoryIndex", index()),
    "load of an unknown model": _load("nope"),
    "load of no model": _load(""),
    "load of a path": _load("../spare"),
    "load of a named repository": _call(
        "RepositoryModelLoad", pb.RepositoryModelLoadRequest(repository_name="nope", model_name="spare")
    ),
    "load with a configuration that is no JSON": _load("spare", config={"string_param": "{"}),
    "load with a configuration of the wrong type": _load("spare", config={"bool_param": True}),
    "load with an unknown parameter": _load("spare", foo={"string_param": "x"}),
    "load with a file and no configuration": _load("spare", **_file(b"{}")),
    "load with a file of the wrong type": _load("spare", **{"file:1/model.json": {"string_param": "{}"}}),
    "ready after refused loads": _call("ServerReady", pb.ServerReadyRequest()),
    "load that fails": _load("failing"),
    "index after a load that fails": _call("RepositoryIndex", index()),
    "server ready after a load that fails": _call("ServerReady", pb.ServerReadyRequest()),
    "model ready after a load that fails": _call("ModelReady", pb.ModelReadyRequest(name="failing")),
    "metadata after a load that fails": _call("ModelMetadata", pb.ModelMetadataRequest(name="failing")),
    "infer after a load that fails": _call("ModelInfer", infer("failing")),
    "statistics after a load that fails": _call("ModelStatistics", pb.ModelStatisticsRequest(name="failing")),
    "unload of what failed": _unload("failing"),
    "server ready after unload of what failed": _call("ServerReady", pb.ServerReadyRequest()),
    "unload": _unload("spare"),
    "unload again": _unload("spare"),
    "unload of an unknown model": _unload("nope"),
    "unload of no model": _unload(""),
    "unload of a named repository": _call(
        "RepositoryModelUnload", pb.RepositoryModelUnloadRequest(repository_name="nope", model_name="spare")
    ),
    "index after unload": _settled,
    "ready after unload": _call("ModelReady", pb.ModelReadyRequest(name="spare")),
    "metadata after unload": _call("ModelMetadata", pb.ModelMetadataRequest(name="spare")),
    "metadata of a version after unload": _call("ModelMetadata", pb.ModelMetadataRequest(name="spare", version="1")),
    "infer after unload": _call("ModelInfer", infer("spare")),
    "statistics after unload": _call("ModelStatistics", pb.ModelStatisticsRequest(name="spare")),
    "statistics counted": _counted,
    "statistics of a version": partial(_shape, name="llm", version="1"),
    "statistics of a language model": partial(_shape, name="llm"),
    "statistics of an unknown model": partial(_shape, name="nope"),
    "statistics of an unknown version": partial(_shape, name="add_sub", version="99"),
    "statistics of a version that is none": partial(_shape, name="add_sub", version="abc"),
    "statistics of a negative version": partial(_shape, name="add_sub", version="-1"),
}
