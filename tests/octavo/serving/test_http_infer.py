"""``infer`` over HTTP, byte by byte: what is wrong has Triton's status and text, and nothing hangs or is an error of ours."""

import json
from typing import Any

import pytest
from http_calls import binary_body, call, infer_body, post, prefixed, text_tensor
from server import Server

INFER = "/v2/models/tiny/infer"
HEADER = "Inference-Header-Content-Length"


def tensor(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{**text_tensor("hello"), **changes}]}


NO_FIELD = (
    "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "
    "'shared_memory_region' in 'parameters'. But "
)
MISFIT = "Unable to parse 'data': Shape does not match true shape of 'data' field"
UNPARSABLE = "failed to parse the request JSON buffer: "
MISTAKES: list[tuple[object, int, str]] = [
    (b"", 400, "Raw request must only have 1 input"),
    (b"{bad", 400, UNPARSABLE + "Missing a name for object member. at 1"),
    (b'{"inputs":[] "id"', 400, UNPARSABLE + "Missing a comma or } after an object member. at 13"),
    (b'{"id": nope}', 400, UNPARSABLE + "Invalid value."),
    (b"\xff\xfe", 400, UNPARSABLE),
    (b"[" * 100_000, 400, UNPARSABLE),
    (b'{"inputs":' + b"[" * 100_000, 400, "Unable to parse 'inputs': attempt to access JSON non-object as object"),
    (b'{"parameters":' + b"[" * 100_000, 400, "Unable to parse 'parameters': attempt to access JSON non-object as object"),
    (b'{"inputs":[],"unknown":' + b"[" * 100_000, 400, UNPARSABLE + "it is nested too deep"),
    (b"[]", 400, UNPARSABLE + "it must be a JSON object"),
    (b"null", 400, UNPARSABLE),
    ({}, 400, "Unable to parse 'inputs': attempt to access non-existing object member 'inputs'"),
    ({"inputs": 1}, 400, "Unable to parse 'inputs': attempt to access JSON non-array as array"),
    ({"inputs": [1]}, 400, "Unable to parse 'inputs': attempt to access JSON non-object as object"),
    ({"inputs": []}, 400, "[request id: <id_unknown>] expected number of inputs between 1 and"),
    (infer_body(id=7), 400, "Unable to parse 'id': attempt to access JSON non-string as string"),
    (infer_body(outputs=[{}]), 400, "Unable to parse 'name': attempt to access non-existing object member 'name'"),
    (infer_body(outputs=[{"name": "nope"}]), 400, "unexpected inference output 'nope' for model 'tiny'"),
    (
        infer_body(outputs=[{"name": "text_output", "parameters": {"binary_data": 1}}]),
        400,
        "Unable to parse 'binary_data': attempt to access JSON non-boolean as boolean",
    ),
    (
        infer_body(outputs=[{"name": "text_output", "parameters": {"shared_memory_region": "r"}}]),
        404,
        "Unable to find shared memory region: 'r'",
    ),
    (
        infer_body(outputs=[{"name": "text_output", "parameters": {"classification": 2}}]),
        400,
        "class result not available for output due to unsupported type 'BYTES'",
    ),
    (infer_body(outputs=[{"name": "x"}] * 1000), 400, "at most 32 requested outputs, got 1000"),
    (infer_body(parameters={"x": [1]}), 400, "parameter 'x' has invalid type. It should be either 'int', 'bool', or 'string'."),
    (infer_body(parameters={"x": None}), 400, "parameter 'x' has invalid type."),
    (infer_body(parameters={"seed": 10**30}), 400, "parameter 'seed' has invalid type."),
    (infer_body(parameters={"temprature": 1}), 400, "did you mean 'temperature'?"),
    (infer_body(parameters={"triton_x": 1}), 400, "reserved for Triton usage and should not be specified."),
    (infer_body(parameters={str(i): i for i in range(1000)}), 400, "at most 64 parameters, got 1000"),
    (tensor(name="nope"), 400, "unexpected inference input 'nope' for model 'tiny'"),
    (tensor(name=3), 400, "Unable to parse 'name': attempt to access JSON non-string as string"),
    (tensor(datatype="FP32", data=[1]), 400, "inference input 'text_input' data-type is 'FP32', but model 'tiny' expects 'BYTES'"),
    (tensor(datatype="FP16", data=[1]), 400, "receiving FP16 data via JSON is not supported."),
    (tensor(datatype="nope"), 400, "invalid datatype for input text_input"),
    (tensor(datatype="UINT8", data=[256]), 400, "holds a number that UINT8 cannot hold"),
    (tensor(datatype="INT64", data=[10**30]), 400, "holds a number that INT64 cannot hold"),
    (tensor(shape=[-1]), 400, "Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer"),
    (tensor(shape=[2**70]), 400, "Unable to parse 'shape'"),
    (tensor(shape=[1] * 100_000), 400, "Unable to parse 'shape'"),
    (tensor(shape="1"), 400, "Unable to parse 'shape': attempt to access JSON non-array as array"),
    (tensor(shape=[2]), 400, MISFIT),
    (tensor(data=["a", "b"]), 400, MISFIT),
    (tensor(data=[]), 400, MISFIT),
    (tensor(data=[1]), 400, "Unable to parse 'data': attempt to access JSON non-string as string"),
    (tensor(data=[["a"], "b"]), 400, "Unable to parse 'data'"),
    (tensor(data={"a": 1}), 400, "Unable to parse 'data'"),
    (tensor(data="\ud800"), 400, UNPARSABLE),
    (tensor(parameters={"binary_data_size": 5}), 400, NO_FIELD + "set 'data' 'binary_data_size'"),
    ({"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [1]}]}, 400, NO_FIELD + "no field is set"),
    ({"inputs": [text_tensor("a"), text_tensor("b")]}, 400, "input 'text_input' already exists in request"),
    ({"inputs": [text_tensor("a", str(i)) for i in range(1000)]}, 400, "at most 32 inputs, got 1000"),
    (infer_body(max_tokens=-1), 400, "max_tokens"),
    (infer_body("x" * 4000), 400, "2048"),
]


@pytest.mark.parametrize(("body", "status", "text"), MISTAKES)
def test_a_mistake_has_its_status_and_text(server: Server, body: object, status: int, text: str) -> None:
    reply = post(server, INFER, body)
    assert reply.refusal[0] == status
    assert text in reply.refusal[1]
    assert reply.headers["content-type"] == "application/json"


SIZED = {"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 9}}]}
BODY, LENGTH = binary_body(SIZED, prefixed(b"hello"))
BINARY_MISTAKES = [
    (BODY, {HEADER: "x"}, f"Unable to parse {HEADER}, got: x"),
    (BODY, {HEADER: "1e3"}, f"Unable to parse {HEADER}, got: 1e3"),
    (BODY, {HEADER: "-1"}, f"inference header size should be in range (0, {len(BODY)}), got: -1"),
    (BODY, {HEADER: "9" * 18}, f"inference header size should be in range (0, {len(BODY)}), got: {'9' * 18}"),
    (BODY, {HEADER: "0"}, "Raw request must only have 1 input"),
    (BODY, {HEADER: "5"}, UNPARSABLE),
    (BODY, {}, UNPARSABLE + "The document root must not be followed by other values."),
    (BODY[:-1], LENGTH, "unexpected size for input 'text_input', expecting 1 additional bytes for model 'tiny'"),
    (BODY + b"x", LENGTH, "unexpected additional input data for model 'tiny'"),
    (BODY[:-9] + b"\xff\xff\xff\xffhello", LENGTH, "incomplete string data for inference input 'text_input'"),
    (BODY[:-9] + b"\x01\x00\x00\x00hello", LENGTH, "inference input 'text_input'"),
]


@pytest.mark.parametrize(("body", "headers", "text"), BINARY_MISTAKES)
def test_bytes_that_are_not_where_they_should_be(server: Server, body: bytes, headers: dict[str, str], text: str) -> None:
    status, said = post(server, INFER, body, headers).refusal
    assert status == 400
    assert text in said


def test_json_and_bytes_side_by_side(server: Server) -> None:
    head = infer_body(outputs=[{"name": "text_output", "parameters": {"binary_data": True}}, {"name": "num_output_tokens"}])
    head["inputs"] = [
        {"name": "return_num_output_tokens", "datatype": "BOOL", "shape": [1], "data": [True]},
        {"name": "text_input", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": 9}},
    ]
    reply = post(server, INFER, *binary_body(head, prefixed(b"hello")))
    assert (reply.status, reply.headers["content-type"]) == (200, "application/octet-stream")
    length = int(reply.headers[HEADER.lower()])
    text, count = json.loads(reply.body[:length])["outputs"]
    assert text["parameters"]["binary_data_size"] == len(reply.body) - length
    assert reply.body[length + 4 :].startswith(b"hello")
    assert count["data"] == [8]


def test_nested_data_and_versions_in_the_path(server: Server) -> None:
    expected = post(server, INFER, infer_body())
    assert expected.status == 200
    nested = infer_body(inputs=[{**text_tensor("hello"), "shape": [1, 1], "data": [["hello"]]}])
    assert post(server, "/v2/models/tiny/versions/1/infer", nested).json == expected.json
    assert list(expected.json) == ["model_name", "model_version", "outputs"]


def test_stream_is_answered_whole(server: Server) -> None:
    whole = post(server, INFER, infer_body()).json["outputs"][0]["data"][0]
    inputs = [text_tensor("hello"), {"name": "stream", "datatype": "BOOL", "shape": [1], "data": [True]}]
    assert "hello" + post(server, INFER, infer_body(inputs=inputs)).json["outputs"][0]["data"][0] == whole


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/nope", 404, "Not Found"),
        ("GET", "/v2/", 404, "Not Found"),
        ("GET", "/v2/models/tiny/infer", 405, "Method Not Allowed"),
        ("POST", "/v2/models/tiny", 405, "Method Not Allowed"),
        ("POST", "/v2/models/nope/infer", 404, "Request for unknown model: 'nope' is not found"),
        ("POST", "/v2/models/nope/generate", 404, "Request for unknown model: 'nope' is not found"),
        ("POST", "/v2/models/tiny/versions/x/infer", 400, "failed to get model version from specified version string 'x'"),
        ("GET", "/v2/models/nope", 404, "Request for unknown model: 'nope' is not found"),
        ("GET", "/v2/models/nope/config", 404, "Request for unknown model: 'nope' is not found"),
        ("GET", "/v2/models/nope/stats", 400, "requested model 'nope' is not available"),
        ("GET", "/v2/models/%2e%2e%2f/config", 404, ""),
        ("POST", "/v2/repository/models/nope/load", 500, "failed to load 'nope', failed to poll from model repository"),
        ("POST", "/v2/repository/main/index", 501, "'repository_name' specification is not supported"),
        ("POST", "/v2/repository/main/models/tiny/load", 501, "'repository_name' specification is not supported"),
        ("GET", "/v2/systemsharedmemory/status", 501, "This server does not implement system shared memory."),
        ("POST", "/v2/cudasharedmemory/region/r/register", 501, "This server does not implement CUDA shared memory."),
    ],
)
def test_routes_that_refuse(server: Server, method: str, path: str, status: int, text: str) -> None:
    got, said = call(server, method, path).refusal
    assert got == status
    assert text in said


def test_the_repository_by_hand(server: Server) -> None:
    index = call(server, "POST", "/v2/repository/index").json
    assert {"name": "tiny", "version": "1", "state": "READY"} in index
    assert {"name": "two"} in index
    ready = post(server, "/v2/repository/index", {"ready": True}).json
    assert {entry["name"] for entry in ready} == {"tiny"}
    assert post(server, "/v2/repository/index", {"ready": 1}).refusal[0] == 400
    load = "/v2/repository/models/other/load"
    assert post(server, load, {"parameters": {"foo": 1}}).refusal == (400, "unrecognized load parameter 'foo'.")
    text = "invalid value type for load parameter 'config', expected string_param."
    assert post(server, load, {"parameters": {"config": 1}}).refusal == (400, text)
    assert post(server, load, b"{bad").refusal[0] == 400
    assert call(server, "POST", "/v2/repository/models/nope/unload").status == 200
