"""``tritonclient.http``, unchanged: everything that it can ask of an LLM server."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
from server import Server
from tritonclient.http import aio
from tritonclient.utils import InferenceServerException

GREEDY = {"max_tokens": 9, "temperature": "0", "ignore_eos": True}


@pytest.fixture
def http(server: Server) -> Iterator[triton.InferenceServerClient]:
    connected = triton.InferenceServerClient(server.http, concurrency=4)
    yield connected
    connected.close()


def text_input(prompt: str, binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput("text_input", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([prompt.encode()], dtype=object), binary_data=binary)
    return tensor


def flag(name: str) -> triton.InferInput:
    tensor = triton.InferInput(name, [1], "BOOL")
    tensor.set_data_from_numpy(np.array([True]))
    return tensor


def test_health_metadata_and_configuration(http: triton.InferenceServerClient) -> None:
    assert http.is_server_live()
    assert http.is_server_ready()
    assert http.is_model_ready("tiny")
    assert not http.is_model_ready("nope")
    assert "binary_tensor_data" in http.get_server_metadata()["extensions"]
    metadata = http.get_model_metadata("tiny", "1")
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == ("tiny", ["1"], "octavo")
    assert metadata["inputs"][0] == {"name": "text_input", "datatype": "BYTES", "shape": [1]}
    config = http.get_model_config("tiny")
    assert config["model_transaction_policy"] == {"decoupled": True}
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (0, [1])


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_infer_is_what_grpc_answers(
    server: Server, http: triton.InferenceServerClient, binary: bool, compression: str | None
) -> None:
    import tritonclient.grpc

    tensor = tritonclient.grpc.InferInput("text_input", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"hello"], dtype=object))
    client = server.client()
    expected = client.infer("tiny", [tensor], parameters=GREEDY).as_numpy("text_output")[0].decode()
    client.close()
    result = http.infer(
        "tiny",
        [text_input("hello", binary)],
        outputs=[triton.InferRequestedOutput("text_output", binary_data=binary)],
        request_id="r",
        parameters=GREEDY,
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    response = result.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == ("tiny", "1", "r")
    text = result.as_numpy("text_output")[0]
    assert (text.decode() if binary else text) == expected
    assert ("parameters" in response["outputs"][0]) is binary


def test_all_outputs_as_bytes_and_as_json(http: triton.InferenceServerClient) -> None:
    inputs = [
        text_input("hello"),
        *(flag(f"return_{name}") for name in ("finish_reason", "num_output_tokens", "cumulative_logprob")),
    ]
    as_bytes = http.infer("tiny", inputs, parameters={**GREEDY, "n": 1})
    names = ["text_output", "finish_reason", "num_output_tokens", "cumulative_logprob"]
    outputs = [triton.InferRequestedOutput(name, binary_data=False) for name in names]
    as_json = http.infer("tiny", inputs, outputs=outputs, parameters=GREEDY)
    assert list(as_bytes.as_numpy("finish_reason")) == [b"length"]
    assert list(as_json.as_numpy("num_output_tokens")) == list(as_bytes.as_numpy("num_output_tokens")) == [9]
    assert as_json.as_numpy("cumulative_logprob") == as_bytes.as_numpy("cumulative_logprob")
    assert as_bytes.as_numpy("num_input_tokens") is None


def test_many_at_once(http: triton.InferenceServerClient) -> None:
    calls = [http.async_infer("tiny", [text_input(f"{i}")], request_id=str(i), parameters=GREEDY) for i in range(20)]
    for number, result in enumerate(call.get_result() for call in calls):
        assert result.get_response()["id"] == str(number)
        assert result.as_numpy("text_output")[0].startswith(str(number).encode())


def test_priority_and_timeout_are_understood(http: triton.InferenceServerClient) -> None:
    assert http.infer("tiny", [text_input("hello")], priority=1, timeout=10_000_000, parameters=GREEDY).as_numpy("text_output").size


def test_errors_have_their_status_and_text(http: triton.InferenceServerClient) -> None:
    for model, version, status, text in [
        ("nope", "", "404", "Request for unknown model: 'nope' is not found"),
        ("tiny", "9", "404", "Request for unknown model: 'tiny' version 9 is not found"),
    ]:
        with pytest.raises(InferenceServerException) as caught:
            http.infer(model, [text_input("hello")], model_version=version)
        assert (caught.value.status(), caught.value.message()) == (status, text)


def test_load_index_statistics_and_unload(http: triton.InferenceServerClient) -> None:
    http.load_model("other")
    assert http.is_model_ready("other")
    http.infer("other", [text_input("hello")], parameters=GREEDY)
    (stats,) = http.get_inference_statistics("other")["model_stats"]
    assert stats["inference_stats"]["success"]["count"] == stats["inference_count"] >= 1
    states = {entry["name"]: entry.get("state") for entry in http.get_model_repository_index()}
    assert states["other"] == states["tiny"] == "READY"
    http.unload_model("other")
    assert not http.is_model_ready("other")
    with pytest.raises(InferenceServerException) as caught:
        http.load_model("nope")
    text = "failed to load 'nope', failed to poll from model repository"
    assert (caught.value.status(), caught.value.message()) == ("500", text)
    with pytest.raises(InferenceServerException, match="file:"):
        http.load_model("other", config="{}", files={"file:1/model.json": b"{}"})


def test_the_client_for_asyncio(server: Server) -> None:
    async def ask() -> str:
        async with aio.InferenceServerClient(server.http) as client:
            assert await client.is_server_ready()
            results = await asyncio.gather(*(client.infer("tiny", [text_input("hello")], parameters=GREEDY) for _ in range(8)))
        (text,) = {result.as_numpy("text_output")[0] for result in results}
        return str(text.decode())

    assert asyncio.run(ask()).startswith("hello")
