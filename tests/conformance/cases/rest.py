"""The same over HTTP: KServe v2 REST with binary tensors, Triton's generate endpoints, health and the repository."""

import json
from functools import partial
from typing import Any

from conformance.answers import Data
from conformance.cases import Case
from conformance.cases.core import BAD_VERSIONS
from conformance.cases.infer import IDENTITY, IN0, IN1
from conformance.cases.streaming import TOKENS
from conformance.client import Client

PERCENT = {" 1": "%201"}
IN0_JSON = {"name": "INPUT0", "datatype": "FP32", "shape": [4], "data": [1, 2, 3, 4]}
IN1_JSON = {"name": "INPUT1", "datatype": "FP32", "shape": [4], "data": [0.5, 0.5, 0.5, 0.5]}
ADD = "/v2/models/add_sub/infer"
LLM = "/v2/models/llm/"


def _get(path: str) -> Case:
    return partial(Client.http, method="GET", path=path)


def _post(path: str, body: Any = None, **headers: str) -> Case:
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return partial(Client.http, method="POST", path=path, body=data, headers=sent)


def _add(*inputs: dict[str, Any], **more: Any) -> Case:
    return _post(ADD, {"inputs": list(inputs), **more})


def _second(**changes: Any) -> Case:
    """A sum with another second input; a change to None leaves that member out."""
    changed = {name: value for name, value in {**IN1_JSON, **changes}.items() if value is not None}
    return _add(IN0_JSON, changed)


def _sum(**more: Any) -> Case:
    return _add(IN0_JSON, IN1_JSON, **more)


def _binary(length: int | None = None, cut: int = 0, **output: Any) -> Case:
    """Both inputs as bytes after the JSON; ``length`` and ``cut`` spoil it."""
    described = [{**tensor, "parameters": {"binary_data_size": 16}} for tensor in (IN0_JSON, IN1_JSON)]
    for tensor in described:
        del tensor["data"]
    head = json.dumps({"inputs": described, **output}).encode()
    body = head + IN0.data() + IN1.data()
    return _post(ADD, body[: len(body) - cut], Inference_Header_Content_Length=str(len(head) if length is None else length))


def _identity(kind: str) -> Case:
    values = [value.decode() if isinstance(value, bytes) else value for value in IDENTITY[kind]]
    return _post("/v2/models/identity/infer", {"inputs": [{"name": f"IN_{kind}", "datatype": kind, "shape": [2], "data": values}]})


def _shape(client: Client, path: str) -> Data:
    """Statistics without their numbers."""
    return _blank(client.http("GET", path))


def _blank(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: value if key == "code" else _blank(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_blank(item) for item in data]
    return "<number>" if isinstance(data, int) else data


def _prompt(**more: Any) -> dict[str, Any]:
    sampling = json.dumps({"temperature": 0, "ignore_eos": True, "max_tokens": TOKENS})
    return {"text_input": "hello", "sampling_parameters": sampling, **more}


LOAD, UNLOAD, INDEX = "/v2/repository/models/{}/load", "/v2/repository/models/{}/unload", "/v2/repository/index"
HTTP: dict[str, Case] = {
    "server": _get("/v2"),
    "live": _get("/v2/health/live"),
    "model ready": _get("/v2/models/llm/ready"),
    "version ready": _get("/v2/models/add_sub/versions/1/ready"),
    "unknown model ready": _get("/v2/models/nope/ready"),
    "unknown version ready": _get("/v2/models/add_sub/versions/99/ready"),
    "bad version ready": _get("/v2/models/add_sub/versions/abc/ready"),
    "metadata": _get("/v2/models/llm"),
    "metadata of an unknown model": _get("/v2/models/nope"),
    **{f"metadata of version '{v}'": _get(f"/v2/models/llm/versions/{PERCENT.get(v, v)}") for v in ("1", *BAD_VERSIONS)},
    "config": _get("/v2/models/llm/config"),
    "config of an unknown model": _get("/v2/models/nope/config"),
    "statistics": partial(_shape, path="/v2/models/llm/stats"),
    "statistics of an unknown model": partial(_shape, path="/v2/models/nope/stats"),
    "statistics of an unknown version": partial(_shape, path="/v2/models/llm/versions/99/stats"),
    "index of what is ready": _post(INDEX, {"ready": True}),
    "index with a body that is no JSON": _post(INDEX, b"{"),
    "load": _post(LOAD.format("spare")),
    "load of an unknown model": _post(LOAD.format("nope")),
    "load with an unknown parameter": _post(LOAD.format("spare"), {"parameters": {"foo": "x"}}),
    "load with a configuration that is no JSON": _post(LOAD.format("spare"), {"parameters": {"config": "{"}}),
    "load with a configuration of the wrong type": _post(LOAD.format("spare"), {"parameters": {"config": True}}),
    "unload": _post(UNLOAD.format("spare")),
    "unload of an unknown model": _post(UNLOAD.format("nope")),
    "no route": _get("/v2/nope"),
    "nothing": _get("/nope"),
    "infer": _sum(id="request 1"),
    "infer nested data": _second(data=[[0.5, 0.5], [0.5, 0.5]]),
    "infer of version 1": _post("/v2/models/add_sub/versions/1/infer", {"inputs": [IN0_JSON, IN1_JSON]}),
    **{f"infer of version '{v}'": _post(f"/v2/models/add_sub/versions/{v}/infer", {"inputs": []}) for v in ("99", "abc", "-1")},
    "infer of an unknown model": _post("/v2/models/nope/infer", {"inputs": [IN0_JSON]}),
    "infer one output": _sum(outputs=[{"name": "OUTPUT1"}]),
    "infer an unknown output": _sum(outputs=[{"name": "nope"}]),
    "infer no inputs": _add(),
    "infer a missing input": _add(IN0_JSON),
    "infer an unknown input": _second(name="nope"),
    "infer an input twice": _add(IN0_JSON, IN0_JSON),
    "infer a wrong shape": _second(shape=[3], data=[1, 2, 3]),
    "infer the wrong type": _second(datatype="INT32", data=[1, 2, 3, 4]),
    "infer an unknown type": _second(datatype="nope"),
    "infer too little data": _second(data=[1, 2]),
    "infer too much data": _second(data=[1, 2, 3, 4, 5]),
    "infer text for numbers": _second(data=["a", "b", "c", "d"]),
    "infer no data": _second(data=None),
    "infer no shape": _second(shape=None),
    "infer no type": _second(datatype=None),
    "infer no name": _second(name=None),
    "infer a body that is no JSON": _post(ADD, b"{"),
    "infer a body that is no object": _post(ADD, b"[]"),
    "infer a reserved parameter": _sum(parameters={"triton_nope": 1}),
    "infer a timeout of the wrong type": _sum(parameters={"timeout": "1"}),
    "infer custom parameters": _sum(parameters={"a": "text", "b": True, "c": 3}),
    "infer by GET": _get(ADD),
    **{f"infer identity {kind}": _identity(kind) for kind in IDENTITY},
    "infer from bytes": _binary(),
    "infer from bytes to bytes": _binary(parameters={"binary_data_output": True}),
    "infer from bytes, one output as bytes": _binary(outputs=[{"name": "OUTPUT0", "parameters": {"binary_data": True}}]),
    "infer from too few bytes": _binary(cut=8),
    "infer from a header that is too long": _binary(length=10**6),
    "infer from a header that is negative": _binary(length=-1),
    "infer from a decoupled model": _post(
        LLM + "infer", {"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}
    ),
    "generate": _post(LLM + "generate", _prompt()),
    "generate of an unknown model": _post("/v2/models/nope/generate", _prompt()),
    "generate of an unknown version": _post("/v2/models/llm/versions/7/generate", _prompt()),
    "generate a body that is no JSON": _post(LLM + "generate", b"{"),
    "generate streamed": _post(LLM + "generate_stream", _prompt(stream=True)),
    "generate streamed with the prompt": _post(LLM + "generate_stream", _prompt(stream=True, exclude_input_in_output=False)),
    "generate streamed of an unknown model": _post("/v2/models/nope/generate_stream", _prompt()),
    "trace settings": _get("/v2/trace/setting"),
    "trace settings of a model": _get("/v2/models/llm/trace/setting"),
    "trace settings of an unknown model": _get("/v2/models/nope/trace/setting"),
    "trace rate": _post("/v2/trace/setting", {"trace_rate": "10"}),
    "trace rate back": _post("/v2/trace/setting", {"trace_rate": None}),
    "trace rate that is no number": _post("/v2/trace/setting", {"trace_rate": "x"}),
    "trace file": _post("/v2/trace/setting", {"trace_file": "/tmp/octavo_no_such_file"}),
    "log settings": _get("/v2/logging"),
    "log verbose": _post("/v2/logging", {"log_verbose_level": 1}),
    "log quiet": _post("/v2/logging", {"log_verbose_level": 0}),
    "log of the wrong type": _post("/v2/logging", {"log_info": "x"}),
    "log of an unknown format": _post("/v2/logging", {"log_format": "nope"}),
    "log file": _post("/v2/logging", {"log_file": "/tmp/octavo_no_such_file"}),
    "shared memory": _get("/v2/systemsharedmemory/status"),
}
CASES = {f"http: {name}": case for name, case in HTTP.items()}
