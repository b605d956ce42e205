"""Section by section what a client can get wrong: each mistake has its code and text, and harms nobody else."""

import gzip
import json
from collections.abc import Callable, Iterator

import grpc
import pytest
from calls import Stream, add_flag, add_text, infer_request, is_final
from server import Server
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

Code = grpc.StatusCode
Change = Callable[[pb.ModelInferRequest], None]
REQUIRED = (
    "[request id: <id_unknown>] expected number of inputs between 1 and 12 but got 0 inputs for model 'tiny'. "
    "Got input(s) [], but missing required input(s) ['text_input']. Please provide all required input(s)."
)


@pytest.fixture(scope="module")
def stub(server: Server) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    with grpc.insecure_channel(server.grpc, options=[("grpc.max_metadata_size", 2**20)]) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def no_inputs(request: pb.ModelInferRequest) -> None:
    del request.inputs[:], request.raw_input_contents[:]


def text(value: bytes) -> Change:
    def change(request: pb.ModelInferRequest) -> None:
        no_inputs(request)
        add_text(request, "text_input", value)

    return change


def options(value: bytes) -> Change:
    def change(request: pb.ModelInferRequest) -> None:
        text(b"hello")(request)
        add_text(request, "sampling_parameters", value)

    return change


def repeated(request: pb.ModelInferRequest) -> None:
    add_text(request, "text_input", b"again")


def unknown_input(request: pb.ModelInferRequest) -> None:
    add_text(request, "txt_input", b"hello")


def wrong_shape(request: pb.ModelInferRequest) -> None:
    request.inputs[0].shape[:] = [1, 2]


def huge_shape(request: pb.ModelInferRequest) -> None:
    request.inputs[0].shape[:] = [2**62, 2**62]


def wrong_type(request: pb.ModelInferRequest) -> None:
    request.inputs[0].datatype = "INT32"


def short_flag(request: pb.ModelInferRequest) -> None:
    request.raw_input_contents[2] = b""


def short_text(request: pb.ModelInferRequest) -> None:
    request.raw_input_contents[0] = b"\x05\0\0\0he"


def huge_length(request: pb.ModelInferRequest) -> None:
    request.raw_input_contents[0] = b"\xff\xff\xff\xffhe"


def unknown_output(request: pb.ModelInferRequest) -> None:
    request.outputs.add(name="nope")


def reserved(request: pb.ModelInferRequest) -> None:
    request.parameters["triton_x"].int64_param = 1


MISTAKES: list[tuple[Change, Code, str]] = [
    (lambda r: setattr(r, "model_name", "nope"), Code.NOT_FOUND, "Request for unknown model: 'nope' is not found"),
    (lambda r: setattr(r, "model_name", "../tiny"), Code.NOT_FOUND, "Request for unknown model: '../tiny' is not found"),
    (lambda r: setattr(r, "model_name", ""), Code.NOT_FOUND, "Request for unknown model: '' is not found"),
    (lambda r: setattr(r, "model_version", "99"), Code.NOT_FOUND, "Request for unknown model: 'tiny' version 99 is not found"),
    (no_inputs, Code.INVALID_ARGUMENT, REQUIRED),
    (repeated, Code.INVALID_ARGUMENT, "[request id: <id_unknown>] input 'text_input' already exists in request"),
    (unknown_input, Code.INVALID_ARGUMENT, "unexpected inference input 'txt_input' for model 'tiny'"),
    (wrong_shape, Code.INVALID_ARGUMENT, "unexpected shape for input 'text_input' for model 'tiny'. Expected [1], got [1,2]. "),
    (huge_shape, Code.INVALID_ARGUMENT, "unexpected shape for input 'text_input' for model 'tiny'. Expected [1], got "),
    (wrong_type, Code.INVALID_ARGUMENT, "input 'text_input' data-type is 'INT32', but model 'tiny' expects 'BYTES'"),
    (short_flag, Code.INVALID_ARGUMENT, "input byte size mismatch for input 'stream' for model 'tiny'. Expected 1, got 0"),
    (short_text, Code.INVALID_ARGUMENT, "expecting string of length 5 but only 2 bytes available"),
    (huge_length, Code.INVALID_ARGUMENT, "expecting string of length 4294967295 but only 2 bytes available"),
    (unknown_output, Code.INVALID_ARGUMENT, "unexpected inference output 'nope' for model 'tiny'"),
    (reserved, Code.INVALID_ARGUMENT, "parameter keys starting with 'triton_' are reserved for Triton usage."),
    (options(b"{"), Code.INVALID_ARGUMENT, "sampling_parameters"),
    (options(b"[1]"), Code.INVALID_ARGUMENT, "sampling_parameters"),
    (options(b'{"temperatur": 1}'), Code.INVALID_ARGUMENT, "temperature"),
    (options(b'{"temperature": "hot"}'), Code.INVALID_ARGUMENT, "temperature"),
    (options(b'{"temperature": -1}'), Code.INVALID_ARGUMENT, "temperature must be between 0.0 and 10000.0, got -1.0."),
    (options(b'{"max_tokens": 0}'), Code.INVALID_ARGUMENT, "max_tokens must be between 1 and 2147483647, got 0."),
    (options(b'{"n": 1000}'), Code.INVALID_ARGUMENT, "n must be between 1 and 128, got 1000."),
    (options(b'{"n": 4611686018427387904}'), Code.INVALID_ARGUMENT, "n must be between 1 and 128, got 4611686018427387904."),
    (options(b'{"n": 0}'), Code.INVALID_ARGUMENT, "n must be at least 1, got 0."),
    (options(b'{"stop": ""}'), Code.INVALID_ARGUMENT, "stop must hold strings of at least one character each."),
    (
        options(json.dumps({"stop": ["a"] * 1025}).encode()),
        Code.INVALID_ARGUMENT,
        "stop must hold at most 32 strings of 1 to 1024 characters each.",
    ),
    (
        options(json.dumps({"bad_words": ["a"] * 1025}).encode()),
        Code.INVALID_ARGUMENT,
        "bad_words must hold at most 128 strings of 1 to 256 characters each.",
    ),
    (options(b'{"logprobs": 1000}'), Code.INVALID_ARGUMENT, "logprobs"),
    (text(b""), Code.INVALID_ARGUMENT, "The prompt must hold at least one token."),
    (text(b"x" * 4000), Code.INVALID_ARGUMENT, "2048"),
    (text(b"\xff\xfe"), Code.INVALID_ARGUMENT, "must be valid UTF-8"),
]


@pytest.mark.parametrize(("change", "code", "expected"), MISTAKES)
def test_a_mistake_has_its_code_and_text(
    stub: service_pb2_grpc.GRPCInferenceServiceStub, server: Server, change: Change, code: Code, expected: str
) -> None:
    request = infer_request(stream=False)
    change(request)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request, timeout=20)
    assert caught.value.code() is code
    assert expected in caught.value.details()
    with Stream(server.grpc) as stream:
        message = next(stream.send(request))
        assert message.error_message == caught.value.details()
        assert is_final(stream.send(infer_request()).rest()[-1])


def test_all_of_them_at_once_harm_no_other_request(server: Server) -> None:
    with Stream(server.grpc) as stream:
        stream.send(infer_request(max_tokens=100, request_id="good"))
        for number, (change, _, _) in enumerate(MISTAKES):
            request = infer_request(request_id=f"bad {number}")
            change(request)
            stream.send(request)
        messages = stream.rest()
    assert sum(bool(m.error_message) for m in messages) == len(MISTAKES)
    good = [m for m in messages if m.infer_response.id == "good"]
    assert is_final(good[-1])
    assert not any(m.error_message for m in good)
    server.wait_until_free()


def test_streaming_with_the_prompt_is_refused_as_vllm_backend_does(server: Server) -> None:
    request = infer_request()
    add_flag(request, "exclude_input_in_output", False)
    with Stream(server.grpc) as stream:
        message = next(stream.send(request))
    text = "Error generating stream: When streaming, `exclude_input_in_output` = False is not allowed."
    assert message.error_message == text


def test_a_string_field_that_is_not_utf8(server: Server) -> None:
    data = infer_request().SerializeToString().replace(b"\x0a\x04tiny", b"\x0a\x04ti\xff\xfe")
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(data)
    assert (caught.value.code(), caught.value.details()) == (Code.INTERNAL, "Unable to parse request")


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_message_over_the_limit_is_refused_however_small_on_the_wire(server: Server, compression: grpc.Compression) -> None:
    data = bytes(64 * 2**20 + 1)
    assert len(gzip.compress(data, 1)) < 2**20
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(data, compression=compression, timeout=60)
    assert caught.value.code() is Code.RESOURCE_EXHAUSTED
    assert server.get("/v2/health/ready")[0] == 200


def test_metadata_over_the_limit_is_refused(stub: service_pb2_grpc.GRPCInferenceServiceStub, server: Server) -> None:
    request = pb.ServerReadyRequest()
    assert stub.ServerReady(request, metadata=[("x", "y" * 8_000)]).ready
    with pytest.raises(grpc.RpcError) as caught:
        stub.ServerReady(request, metadata=[("x", "y" * 20_000)])
    assert caught.value.code() in {Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE, Code.INTERNAL}
    assert stub.ServerReady(request).ready


def test_a_long_id_comes_back_whole_and_is_cut_in_a_text(server: Server) -> None:
    name = "i" * 5000
    wrong = infer_request(request_id=name)
    wrong.inputs[0].shape[:] = [1, 2]
    with Stream(server.grpc) as stream:
        messages = stream.send(infer_request(request_id=name), wrong).rest()
    assert all(m.infer_response.id == name for m in messages)
    assert all(len(m.error_message) < 300 for m in messages)


def test_an_id_over_the_limit_is_refused_and_not_sent_back(server: Server) -> None:
    name = "i" * (2**16 + 1)
    text = "The id of a request must have at most 65536 bytes, got 65537."
    with Stream(server.grpc) as stream:
        messages = stream.send(infer_request(model="nope", request_id=name), infer_request(request_id=name)).rest()
    assert [m.infer_response.id for m in messages] == ["", ""]
    assert text in {m.error_message for m in messages}


LONG = "\u20ac" * 20_000
LONG_NAMES = [
    ("ModelMetadata", pb.ModelMetadataRequest(name=LONG), "Request for unknown model: '{}' is not found"),
    ("ModelInfer", pb.ModelInferRequest(model_name=LONG), "Request for unknown model: '{}' is not found"),
    ("ModelStatistics", pb.ModelStatisticsRequest(name=LONG), "requested model '{}' is not available"),
    (
        "ModelReady",
        pb.ModelReadyRequest(name="tiny", version=LONG),
        "failed to get model version from specified version string '{}' (details: stol), version should be an integral value > 0",
    ),
    (
        "RepositoryModelLoad",
        pb.RepositoryModelLoadRequest(model_name=LONG),
        "failed to load '{}', failed to poll from model repository",
    ),
    (
        "RepositoryModelLoad",
        pb.RepositoryModelLoadRequest(model_name="tiny", parameters={LONG: pb.ModelRepositoryParameter(bool_param=True)}),
        "unrecognized load parameter '{}'.",
    ),
]


@pytest.mark.parametrize(("rpc", "message", "text"), LONG_NAMES)
def test_a_long_name_is_cut_and_the_sentence_around_it_is_not(
    stub: service_pb2_grpc.GRPCInferenceServiceStub, rpc: str, message: object, text: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, rpc)(message, timeout=20)
    assert caught.value.details() == text.format("\u20ac" * 128 + "...")


def test_a_full_queue_and_a_wait_that_was_too_long(server: Server) -> None:
    client = server.client()
    client.load_model("narrow")
    rejected = server.metric("nv_inference_request_failure", model="narrow", reason="REJECTED")
    full = "[request id: {}] Exceeds maximum queue size"
    with Stream(server.grpc) as stream:
        next(stream.send(infer_request(max_tokens=1900, model="narrow", request_id="runs")))
        impatient = infer_request(model="narrow", request_id="impatient")
        impatient.parameters["timeout"].int64_param = 1_000_000
        stream.send(impatient)
        server.wait_until(lambda: server.metric("vllm:num_requests_waiting", model="narrow") == 1, "a request to wait")
        stream.send(infer_request(model="narrow", request_id="third"))
        with pytest.raises(grpc.RpcError) as caught:
            client._client_stub.ModelInfer(infer_request(model="narrow", stream=False))
        assert (caught.value.code(), caught.value.details()) == (Code.UNAVAILABLE, full.format("<id_unknown>"))
        failures: dict[str, str] = {}
        while len(failures) < 2:
            message = next(stream)
            if message.error_message:
                failures[message.infer_response.id] = message.error_message
        assert failures == {"third": full.format("third"), "impatient": "Request timeout expired"}
    assert server.metric("nv_inference_request_failure", model="narrow", reason="REJECTED") == rejected + 3
    client.unload_model("narrow")
    client.close()
