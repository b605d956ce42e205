"""Liveness, readiness, metadata and configuration as tritonclient sees them, with Triton's codes and texts."""

import json

import grpc
import pytest
import tritonclient.grpc as triton
from calls import infer_request
from server import Server
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

BAD_VERSION = (
    "failed to get model version from specified version string '{}' (details: stol), version should be an integral value > 0"
)


def refusal(call: object, *arguments: object) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments)
    return caught.value.status(), caught.value.message()


def test_a_ready_server(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")


def test_what_is_unknown_is_not_ready(client: triton.InferenceServerClient) -> None:
    assert not client.is_model_ready("nope")
    assert not client.is_model_ready("")
    assert not client.is_model_ready("tiny", "99")
    assert not client.is_model_ready("two")


def test_server_metadata_names_only_what_works(client: triton.InferenceServerClient) -> None:
    metadata = client.get_server_metadata()
    assert metadata.name == "octavo"
    assert metadata.version
    works = ["model_repository", "schedule_policy", "model_configuration", "binary_tensor_data", "parameters", "statistics"]
    works += ["trace", "logging"]
    assert list(metadata.extensions) == works


def test_model_metadata(client: triton.InferenceServerClient) -> None:
    metadata = client.get_model_metadata("tiny")
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("tiny", ["1"], "octavo")
    inputs = {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs}
    assert inputs["text_input"] == ("BYTES", [1])
    assert inputs["stream"] == ("BOOL", [1])
    assert {tensor.name for tensor in metadata.outputs} >= {"text_output", "finish_reason", "num_output_tokens"}
    assert metadata == client.get_model_metadata("tiny", "1")


def test_model_config(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config("tiny").config
    assert (config.name, config.backend, config.max_batch_size) == ("tiny", "octavo", 0)
    assert config.model_transaction_policy.decoupled
    assert config.input[0].name == "text_input"


def test_a_model_answers_to_all_its_names(server: Server, client: triton.InferenceServerClient) -> None:
    for name in ("org/tiny-chat", "small"):
        assert client.is_model_ready(name)
        assert client.get_model_metadata(name).name == "tiny"
        assert client._client_stub.ModelInfer(infer_request(model=name, stream=False)).model_name == "tiny"
        assert client.get_inference_statistics(name).model_stats[0].name == "tiny"
    listed = [model["id"] for model in json.loads(server.get("/v1/models")[1])["data"]]
    assert {"tiny", "org/tiny-chat", "small"} <= set(listed)


@pytest.mark.parametrize("method", ["get_model_metadata", "get_model_config"])
def test_unknown_models_and_versions(client: triton.InferenceServerClient, method: str) -> None:
    get = getattr(client, method)
    assert refusal(get, "nope") == ("StatusCode.NOT_FOUND", "Request for unknown model: 'nope' is not found")
    assert refusal(get, "") == ("StatusCode.NOT_FOUND", "Request for unknown model: '' is not found")
    assert refusal(get, "other") == ("StatusCode.NOT_FOUND", "Request for unknown model: 'other' is not found")
    unknown = "Request for unknown model: 'tiny' version 99 is not found"
    assert refusal(get, "tiny", "99") == ("StatusCode.NOT_FOUND", unknown)


@pytest.mark.parametrize("method", ["get_model_metadata", "get_model_config", "is_model_ready", "get_inference_statistics"])
@pytest.mark.parametrize("version", ["abc", "1_0", "9" * 19, "\u0661"])
def test_versions_that_are_no_numbers(client: triton.InferenceServerClient, method: str, version: str) -> None:
    code, text = refusal(getattr(client, method), "tiny", version)
    assert (code, text) == ("StatusCode.INVALID_ARGUMENT", BAD_VERSION.format(version))


def test_a_negative_version(client: triton.InferenceServerClient) -> None:
    text = "invalid model version specified '-1' , version should be an integral value > 0"
    assert refusal(client.get_model_metadata, "tiny", "-1") == ("StatusCode.INVALID_ARGUMENT", text)


@pytest.mark.parametrize(
    "method",
    [
        "SystemSharedMemoryStatus",
        "SystemSharedMemoryRegister",
        "SystemSharedMemoryUnregister",
        "CudaSharedMemoryStatus",
        "CudaSharedMemoryRegister",
        "CudaSharedMemoryUnregister",
    ],
)
def test_what_is_not_there_says_so_in_a_sentence(server: Server, method: str) -> None:
    request = getattr(service_pb2, f"{method}Request")()
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        getattr(service_pb2_grpc.GRPCInferenceServiceStub(channel), method)(request)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert caught.value.details() == f"This server does not implement {method}."


def test_the_service_has_all_twenty_rpcs(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        for method in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
            if method.server_streaming:
                continue
            call = channel.unary_unary(f"/inference.GRPCInferenceService/{method.name}")
            with pytest.raises(grpc.RpcError) as caught:
                call(b"\xff\xff\xff")
            assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "Unable to parse request")


def test_an_unknown_method(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/inference.GRPCInferenceService/ModelDelete")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_http(server: Server) -> None:
    assert server.get("/v2/health/live") == (200, '{"live":true}')
    assert server.get("/v2/health/ready") == (200, '{"ready":true}')
    assert server.get("/v2/models/tiny/ready") == (200, "")
    assert server.get("/v2/models/tiny/versions/1/ready") == (200, "")
    assert server.get("/v2/models/tiny/versions/9/ready") == (400, '{"error":"Model version not ready"}')
    assert server.get("/v2/models/nope/ready") == (400, '{"error":"Model version not ready"}')
    assert server.get("/v2/models/tiny/versions/abc/ready")[0] == 400
    assert '"name":"octavo"' in server.get("/v2")[1]
    assert server.get("/v2/nope")[0] == 404
