"""vllm_backend's tensors in, and what tritonclient reads out."""

import json

import numpy as np
import pytest
import tritonclient.grpc as tritonclient
from tritonclient.grpc import _utils as tritonclient_utils

from octavo.engine.messages import TokenLogprobs
from octavo.errors import EngineDead, InvalidRequest, NotFound, Unsupported
from octavo.protocol.rejection import RejectedRequest
from octavo.protocol.triton import TritonModel
from octavo.protocol.triton_reply import TritonReply, model_metadata, stream_error
from octavo.sampling import SamplingParams
from octavo.text.request import GenerateChunk, SampleDelta
from octavo.wire import mc, pb

EVERY_FLAG = {
    f"return_{name}": True
    for name in ("finish_reason", "cumulative_logprob", "logprobs", "num_input_tokens", "num_output_tokens", "token_ids")
}


def chunk(*samples: SampleDelta, final: bool = True) -> GenerateChunk:
    return GenerateChunk(list(samples), final, [[1, 2, 3, 4, 5]])


def token_text(token_id: int) -> str:
    return f"<{token_id}>"


def read_by_client(response: pb.ModelInferResponse) -> dict[str, list]:
    """What ``tritonclient`` makes of a response's bytes."""
    result = tritonclient.InferResult(tritonclient.service_pb2.ModelInferResponse.FromString(response.SerializeToString()))
    return {output.name: result.as_numpy(output.name).tolist() for output in result.get_response().outputs}


def test_a_prompt_alone_gets_vllms_defaults(model, ask):
    call = model.read(ask(id="a"))
    assert call.request.prompts == ["hi"]
    assert call.request.sampling == SamplingParams()
    assert (call.request.model, call.request.version, call.request.stream, call.id) == ("llm_stream", 1, False, "a")
    assert call.outputs == ("text_output",)
    assert call.prefixes == ("hi",)


def test_requests_of_tritonclient_are_understood(model):
    text = tritonclient.InferInput("text_input", [1, 1], "BYTES")
    text.set_data_from_numpy(np.array([["Grüße"]], dtype=object))
    stream = tritonclient.InferInput("stream", [1], "BOOL")
    stream.set_data_from_numpy(np.array([True]))
    theirs = tritonclient_utils._get_inference_request(
        model_name="llm_stream",
        inputs=[text, stream],
        model_version="",
        request_id="7",
        outputs=[tritonclient.InferRequestedOutput("text_output")],
        sequence_id=0,
        sequence_start=False,
        sequence_end=False,
        priority=1,
        timeout=2_000_000,
        parameters={"max_tokens": 3, "temperature": 0.25, "ignore_eos": True, "stop": "END"},
    )
    call = model.read(pb.ModelInferRequest.FromString(theirs.SerializeToString()))
    request = call.request
    assert (request.prompts, request.stream, request.priority, request.queue_timeout) == (["Grüße"], True, -1, 2.0)
    assert request.sampling == SamplingParams(max_tokens=3, temperature=0.25, ignore_eos=True, stop=("END",))


def test_the_sampling_tensor_overrides_plain_parameters(model, ask):
    request = ask(parameters={"temperature": 0.5, "max_tokens": 9}, sampling_parameters='{"temperature": "0", "top_k": 3}')
    assert model.read(request).request.sampling == SamplingParams(temperature=0.0, max_tokens=9, top_k=3)


@pytest.mark.parametrize(
    ("stream", "exclude", "prefix"),
    [(None, None, "hi"), (False, None, "hi"), (None, False, "hi"), (None, True, ""), (True, None, ""), (True, True, "")],
)
def test_the_prompt_is_put_before_the_text_by_vllm_backends_rules(model, ask, stream, exclude, prefix):
    assert model.read(ask(stream=stream, exclude_input_in_output=exclude)).prefixes == ((prefix,) if prefix else ())


def test_streaming_with_the_prompt_is_refused_in_vllm_backends_words(model, ask):
    with pytest.raises(InvalidRequest) as caught:
        model.read(ask(stream=True, exclude_input_in_output=False))
    assert str(caught.value) == "Error generating stream: When streaming, `exclude_input_in_output` = False is not allowed."


def test_a_unary_call_is_answered_whole_even_if_it_says_stream(model, ask):
    call = model.read(ask(stream=True), unary=True)
    assert not call.request.stream
    assert call.prefixes == ()


def test_text_that_is_no_utf8_is_refused(model, ask):
    with pytest.raises(InvalidRequest, match="The input 'text_input' must be valid UTF-8, but byte 1 is not"):
        model.read(ask(text_input=b"a\xff"))


def test_a_required_input_that_is_missing_reads_as_in_triton(model, ask):
    with pytest.raises(RejectedRequest) as caught:
        model.read(ask(id="m", text_input=None))
    assert str(caught.value) == (
        "[request id: m] expected number of inputs between 1 and 12 but got 0 inputs for model 'llm_stream'. Got input(s) [], "
        "but missing required input(s) ['text_input']. Please provide all required input(s)."
    )
    with pytest.raises(RejectedRequest, match=r"but got 1 inputs .* missing required input\(s\) \['text_input'\]"):
        model.read(ask(text_input=None, stream=True))


def test_wrong_shape_and_output_read_as_in_triton(model, ask):
    request = ask(id="s")
    request.inputs[0].shape[:] = [1, 2]
    with pytest.raises(RejectedRequest) as caught:
        model.read(request)
    assert (
        str(caught.value)
        == "[request id: s] unexpected shape for input 'text_input' for model 'llm_stream'. Expected [1], got [1,2]. "
    )
    with pytest.raises(RejectedRequest) as caught:
        model.read(ask(outputs=["nope"]))
    assert str(caught.value) == "unexpected inference output 'nope' for model 'llm_stream'"


def test_more_tensors_than_any_model_has_are_refused(model):
    request = pb.ModelInferRequest(inputs=[pb.ModelInferRequest.InferInputTensor(name=str(i)) for i in range(10_000)])
    with pytest.raises(RejectedRequest, match="at most 32 inputs, got 10000"):
        model.read(request)
    request = pb.ModelInferRequest(outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="text_output")] * 33)
    with pytest.raises(RejectedRequest, match="at most 32 requested outputs, got 33"):
        model.read(request)


def test_an_id_that_every_message_would_carry_has_a_limit(model, ask):
    assert model.read(ask(id="ü" * 2**15)).id == "ü" * 2**15
    long = "ü" * 2**15 + "u"
    with pytest.raises(RejectedRequest, match=r"^The id of a request must have at most 65536 bytes, got 65537\.$") as refused:
        model.read(ask(id=long))
    assert stream_error(refused.value, long, "llm_stream").infer_response.id == ""


@pytest.mark.parametrize(
    ("flags", "logprobs"), [({}, None), ({"return_cumulative_logprob": True}, 0), ({"return_logprobs": True}, None)]
)
def test_a_cumulative_logprob_alone_asks_for_the_chosen_tokens_only(model, ask, flags, logprobs):
    assert model.read(ask(**flags)).request.sampling.logprobs == logprobs
    assert model.read(ask(parameters={"logprobs": 2}, **flags)).request.sampling.logprobs == 2


def test_prompt_logprobs_which_have_no_output_are_refused(model, ask):
    with pytest.raises(Unsupported, match=r"^The sampling parameter 'prompt_logprobs' is not served over this interface yet"):
        model.read(ask(parameters={"prompt_logprobs": 0}))
    assert model.read(ask(sampling_parameters='{"prompt_logprobs": null}')).request.sampling == SamplingParams()


def test_outputs_are_those_asked_for_and_listed(model, ask):
    assert model.read(ask(**EVERY_FLAG)).outputs == (
        "text_output",
        "finish_reason",
        "cumulative_logprob",
        "logprobs",
        "num_input_tokens",
        "num_output_tokens",
        "token_ids",
    )
    assert model.read(ask(outputs=["finish_reason", "logprobs"], return_finish_reason=True)).outputs == ("finish_reason",)
    assert model.read(ask(outputs=["text_output", "text_output"])).outputs == ("text_output",)


def test_tritonclient_reads_every_output_of_a_whole_answer(model, ask):
    reply = TritonReply(model.read(ask(id="a", parameters={"n": 2, "logprobs": 1}, **EVERY_FLAG)), token_text)
    entry = TokenLogprobs([7, 9], [-0.5, float("-inf")], [1, 2])
    first = SampleDelta(" ü", [7], "stop", None, -0.5, [entry])
    second = SampleDelta("", [7, 9], "length", None, -1.25, [entry, entry])
    response = reply.unary(chunk(first, second))
    position = {
        "7": {"logprob": -0.5, "rank": 1, "decoded_token": "<7>"},
        "9": {"logprob": -9999.0, "rank": 2, "decoded_token": "<9>"},
    }
    read = read_by_client(response)
    assert [json.loads(text) for text in read.pop("logprobs")] == [[position], [position, position]]
    assert read == {
        "text_output": ["hi ü".encode(), b"hi"],
        "finish_reason": [b"stop", b"length"],
        "cumulative_logprob": [-0.5, -1.25],
        "num_input_tokens": [5],
        "num_output_tokens": [1, 2],
        "token_ids": [7, 7, 9],
    }
    assert (response.model_name, response.model_version, response.id) == ("llm_stream", "1", "a")
    assert dict(response.parameters) == {}


def test_declared_types_and_shapes_are_what_is_sent(model, ask, config):
    response = TritonReply(model.read(ask(**EVERY_FLAG)), token_text).unary(chunk(SampleDelta("x", [1], "stop")))
    declared = {t.name: t.datatype for t in model_metadata(config, [1]).outputs}
    assert {t.name: t.datatype for t in response.outputs} == declared
    assert all(list(t.shape) == [1] for t in response.outputs)


def test_logprobs_that_were_not_set_are_null(model, ask):
    call = model.read(ask(return_logprobs=True, return_cumulative_logprob=True))
    delta = SampleDelta("x", [1], None, None, -1.0, [TokenLogprobs([1], [-1.0], [1])])
    read = read_by_client(TritonReply(call, token_text).unary(chunk(delta)))
    assert read["logprobs"] == [b"null"]
    assert read["cumulative_logprob"] == [-1.0]


def streamed(reply, piece) -> pb.ModelStreamInferResponse:
    return pb.ModelStreamInferResponse.FromString(reply.streamed(piece))


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 200, 16_383, 16_384, 3_000_000])
@pytest.mark.parametrize("final", [True, False])
def test_a_message_is_written_as_protobuf_would_write_it(model, ask, size, final):
    call = model.read(ask(id="s", stream=True, return_token_ids=True, return_num_output_tokens=True))
    built = pb.ModelStreamInferResponse()
    piece = chunk(SampleDelta("é" * size, [7] * size), final=final)
    built.infer_response.CopyFrom(TritonReply(call, token_text).unary(piece))
    built.infer_response.parameters["triton_final_response"].bool_param = final
    assert TritonReply(call, token_text).streamed(piece) == built.SerializeToString(deterministic=True)


def test_a_stream_says_none_until_the_end_and_flags_the_last(model, ask):
    reply = TritonReply(model.read(ask(id="s", stream=True, return_finish_reason=True, return_num_output_tokens=True)), token_text)
    first = streamed(reply, chunk(SampleDelta("a", [1, 2]), final=False))
    last = streamed(reply, chunk(SampleDelta("", [3], "length"), final=True))
    assert read_by_client(first.infer_response) == {"text_output": [b"a"], "finish_reason": [b"None"], "num_output_tokens": [2]}
    assert read_by_client(last.infer_response) == {"text_output": [b""], "finish_reason": [b"length"], "num_output_tokens": [1]}
    flags = [message.infer_response.parameters["triton_final_response"].bool_param for message in (first, last)]
    assert flags == [False, True]
    assert first.error_message == ""
    assert "triton_final_response" in first.infer_response.parameters


def test_an_answer_that_is_not_streamed_starts_with_the_prompt_on_a_stream_too(model, ask):
    reply = TritonReply(model.read(ask()), token_text)
    assert read_by_client(streamed(reply, chunk(SampleDelta(" you", [1], "stop"))).infer_response) == {"text_output": [b"hi you"]}


def test_a_rejected_request_is_answered_with_its_id_alone():
    for error in (RejectedRequest("no"), NotFound("Request for unknown model: 'nope' is not found")):
        message = stream_error(error, "u", "nope")
        assert message == pb.ModelStreamInferResponse(error_message=str(error), infer_response=pb.ModelInferResponse(id="u"))


def test_a_later_error_names_the_model_and_is_final():
    message = stream_error(EngineDead("boom at 2"), "e", "llm_stream")
    assert message.error_message == "boom at 2"
    assert message.infer_response.model_name == "llm_stream"
    assert message.infer_response.model_version == ""
    assert message.infer_response.parameters["triton_final_response"].bool_param


def test_metadata_has_the_wires_names_and_the_batch_dimension(config):
    metadata = model_metadata(config, [1, 3])
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("llm_stream", ["1", "3"], "octavo")
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs][:2] == [
        ("text_input", "BYTES", [1]),
        ("stream", "BOOL", [1]),
    ]
    batched = mc.ModelConfig(
        name="b", platform="p", max_batch_size=8, input=[mc.ModelInput(name="x", data_type=mc.TYPE_FP32, dims=[4])]
    )
    assert list(model_metadata(batched, [1]).inputs[0].shape) == [-1, 4]


def test_a_model_reads_its_tensors_from_its_configuration():
    config = mc.ModelConfig(name="b", input=[mc.ModelInput(name="text_input", data_type=mc.TYPE_STRING, dims=[1])])
    request = pb.ModelInferRequest(raw_input_contents=[b"\0\0\0\0", b"\1"])
    request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    request.inputs.add(name="stream", datatype="BOOL", shape=[1])
    with pytest.raises(RejectedRequest, match="expected 1 inputs but got 2 inputs for model 'b'"):
        TritonModel(config, 1).read(request)
