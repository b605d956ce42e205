"""The unary ModelInfer: the whole answer at once, also on this decoupled model."""

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from calls import Stream, infer_request, text_of
from server import Server


def text_input(prompt: str) -> triton.InferInput:
    tensor = triton.InferInput("text_input", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([prompt.encode()], dtype=object))
    return tensor


def test_tritonclient_gets_prompt_and_text(server: Server, client: triton.InferenceServerClient) -> None:
    options = {"max_tokens": 9, "temperature": "0", "ignore_eos": True}
    result = client.infer("tiny", [text_input("hello")], request_id="r", parameters=options)
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == ("tiny", "1", "r")
    assert not response.parameters
    with Stream(server.grpc) as stream:
        streamed = b"".join(text_of(m.infer_response) for m in stream.send(infer_request("hello", 9)).rest())
    assert result.as_numpy("text_output")[0] == b"hello" + streamed


def test_outputs_are_those_asked_for(client: triton.InferenceServerClient) -> None:
    flags = []
    for name in ("return_finish_reason", "return_num_input_tokens", "return_num_output_tokens"):
        flag = triton.InferInput(name, [1], "BOOL")
        flag.set_data_from_numpy(np.array([True]))
        flags.append(flag)
    outputs = [triton.InferRequestedOutput(name) for name in ("finish_reason", "num_input_tokens", "num_output_tokens")]
    options = {"max_tokens": 4, "ignore_eos": True, "n": 2, "seed": 7}
    result = client.infer("tiny", [text_input("hello"), *flags], outputs=outputs, parameters=options)
    assert list(result.as_numpy("finish_reason")) == [b"length", b"length"]
    assert list(result.as_numpy("num_input_tokens")) == [5]
    assert list(result.as_numpy("num_output_tokens")) == [4, 4]
    assert result.as_numpy("text_output") is None


def test_a_unary_request_for_a_stream_gets_it_whole(client: triton.InferenceServerClient) -> None:
    response = client._client_stub.ModelInfer(infer_request("hello", 9, stream=True))
    whole = client._client_stub.ModelInfer(infer_request("hello", 9, stream=False))
    assert b"hello" + text_of(response) == text_of(whole)


def test_a_deadline_frees_the_pages(server: Server, client: triton.InferenceServerClient) -> None:
    server.wait_until_free()
    cancelled = server.metric("nv_inference_request_failure", reason="CANCELED")
    endless = infer_request(max_tokens=1900, stream=False, n=64, temperature=1.0)
    with pytest.raises(grpc.RpcError) as caught:
        client._client_stub.ModelInfer(endless, timeout=3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    server.wait_until_free()
    assert server.metric("nv_inference_request_failure", reason="CANCELED") == cancelled + 1
