"""What one request may have of something, at the edge of each limit and one beyond, over gRPC and HTTP."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from calls import infer_request
from http_calls import post, raw
from server import Server, running
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

INPUTS, OUTPUTS, ELEMENTS, SAMPLES, STOPS, LENGTH, HEADER = 4, 3, 20, 2, 2, 5, 2048
MODEL = "/v2/models/tiny/"


@pytest.fixture(scope="module")
def tight(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = [f"--max-request-inputs={INPUTS}", f"--max-request-outputs={OUTPUTS}", f"--max-input-elements={ELEMENTS}"]
    flags += [f"--max-samples={SAMPLES}", f"--max-stop-strings={STOPS}", f"--max-stop-length={LENGTH}"]
    flags += [f"--http-max-header-size={HEADER}", "--model-control-mode=explicit", "--load-model=tiny"]
    with running(repository, *flags, log=tmp_path_factory.mktemp("log") / "log") as server:
        yield server


def asked(server: Server, request: pb.ModelInferRequest) -> str:
    """What is wrong with ``request``: nothing if it is answered."""
    with grpc.insecure_channel(server.grpc) as channel:
        try:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            return error.details() or "?"
    return ""


def with_inputs(count: int) -> pb.ModelInferRequest:
    request = infer_request(max_tokens=1, stream=False)
    for name in ("exclude_input_in_output", "return_finish_reason", "return_logprobs")[: count - 3]:
        request.inputs.add(name=name, datatype="BOOL", shape=[1])
        request.raw_input_contents.append(b"\x01")
    return request


def with_outputs(count: int) -> pb.ModelInferRequest:
    request = infer_request(max_tokens=1, stream=False)
    for name in ("text_output", "finish_reason", "num_input_tokens", "num_output_tokens")[:count]:
        request.outputs.add(name=name)
    return request


def with_elements(count: int) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="tiny")
    request.inputs.add(name="input_ids", datatype="INT32", shape=[count])
    request.raw_input_contents.append(struct.pack(f"<{count}i", *range(1, count + 1)))
    return request


def with_options(**options: Any) -> pb.ModelInferRequest:
    return infer_request(max_tokens=1, stream=False, temperature=1.0, **options)


EDGES = {
    "inputs": (with_inputs(INPUTS), with_inputs(INPUTS + 1), "The request must have at most 4 inputs, got 5."),
    "outputs": (with_outputs(OUTPUTS), with_outputs(OUTPUTS + 1), "The request must have at most 3 requested outputs, got 4."),
    "elements": (
        with_elements(ELEMENTS),
        with_elements(ELEMENTS + 1),
        "The input 'input_ids' must have at most 20 elements, got 21.",
    ),
    "n": (with_options(n=SAMPLES), with_options(n=SAMPLES + 1), "n must be between 1 and 2, got 3."),
    "logprobs": (with_options(logprobs=20), with_options(logprobs=21), "logprobs must be at most 20, got 21."),
    "stops": (
        with_options(stop=["a"] * STOPS),
        with_options(stop=["a"] * (STOPS + 1)),
        "stop must hold at most 2 strings of 1 to 5 characters each.",
    ),
    "length of a stop": (
        with_options(stop="x" * LENGTH),
        with_options(stop="x" * (LENGTH + 1)),
        "stop must hold at most 2 strings of 1 to 5 characters each.",
    ),
}


@pytest.mark.parametrize("what", EDGES)
def test_a_request_may_have_as_much_and_no_more(tight: Server, what: str) -> None:
    fits, is_over, text = EDGES[what]
    assert asked(tight, fits) == ""
    assert asked(tight, is_over) == text


def ids(count: int) -> dict[str, Any]:
    data = list(range(1, count + 1))
    return {"inputs": [{"name": "input_ids", "datatype": "INT32", "shape": [count], "data": data}], "parameters": {"max_tokens": 1}}


HTTP_EDGES = {
    "elements": ("infer", ids(ELEMENTS), ids(ELEMENTS + 1), EDGES["elements"][2]),
    "elements of generate": (
        "generate",
        {"input_ids": list(range(1, ELEMENTS + 1)), "max_tokens": 1},
        {"input_ids": list(range(1, ELEMENTS + 2)), "max_tokens": 1},
        EDGES["elements"][2],
    ),
    "n": (
        "generate",
        {"text_input": "a", "max_tokens": 1, "temperature": 1.0, "n": SAMPLES},
        {"text_input": "a", "max_tokens": 1, "temperature": 1.0, "n": SAMPLES + 1},
        EDGES["n"][2],
    ),
    "outputs": (
        "infer",
        ids(1) | {"outputs": [{"name": name} for name in ("text_output", "finish_reason", "num_input_tokens")]},
        ids(1) | {"outputs": [{"name": "text_output"}] * (OUTPUTS + 1)},
        EDGES["outputs"][2],
    ),
}


@pytest.mark.parametrize("what", HTTP_EDGES)
def test_over_http_too(tight: Server, what: str) -> None:
    verb, fits, is_over, text = HTTP_EDGES[what]
    assert post(tight, MODEL + verb, fits).status == 200
    assert post(tight, MODEL + verb, is_over).refusal == (400, text)


def test_data_that_holds_more_than_its_shape_says_is_not_read(tight: Server) -> None:
    body = ids(1)
    body["inputs"][0]["data"] = [0] * 10**6
    assert post(tight, f"{MODEL}infer", body).refusal[0] == 400


def test_the_openai_api_has_the_same_limits(tight: Server) -> None:
    body = {"model": "tiny", "prompt": "a", "max_tokens": 1, "n": SAMPLES}
    assert post(tight, "/v1/completions", body).status == 200
    reply = post(tight, "/v1/completions", body | {"n": SAMPLES + 1})
    assert (reply.status, reply.json["error"]["message"]) == (400, EDGES["n"][2])


@pytest.mark.parametrize(("beyond", "status"), [(0, b" 200 "), (1, b" 431 ")])
def test_a_header_may_have_as_much_and_no_more(tight: Server, beyond: int, status: bytes) -> None:
    counted = len(b"/v2" + b"Host" + b"x" + b"Connection" + b"close" + b"X")
    value = b"y" * (HEADER - counted + beyond)
    said = raw(tight, b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: " + value + b"\r\n\r\n")
    assert said.split(b"\r\n")[0].find(status) > 0
