"""The names that TensorRT-LLM's clients send, each understood as ours."""

import numpy as np
import pytest
import tritonclient.grpc as tritonclient

from octavo.engine.messages import TokenLogprobs
from octavo.errors import InvalidRequest, OctavoError, Unsupported
from octavo.protocol.aliases import ALIASES, FLAGS, OPTIONS
from octavo.protocol.rejection import RejectedRequest
from octavo.protocol.sampling_fields import UNSUPPORTED
from octavo.protocol.triton import TritonStop
from octavo.protocol.triton_reply import StopReply, TritonReply
from octavo.sampling import SamplingParams
from octavo.text.request import GenerateChunk, SampleDelta
from octavo.wire import pb

TYPES = {"BYTES": object, "BOOL": bool, "INT32": np.int32, "INT64": np.int64, "UINT64": np.uint64, "FP32": np.float32}


def request_of(id="", parameters=None, text="hi", **tensors) -> pb.ModelInferRequest:
    """``tensors``: (values, datatype) by name; the shape is that of the values."""
    request = pb.ModelInferRequest(model_name="llm_stream", id=id)
    given = {"text_input": ([[text]], "BYTES"), **tensors} if text is not None else tensors
    for name, (values, datatype) in given.items():
        array = np.array(values, dtype=TYPES[datatype])
        made = tritonclient.InferInput(name, list(array.shape), datatype).set_data_from_numpy(array)
        request.inputs.append(pb.ModelInferRequest.InferInputTensor.FromString(made._get_tensor().SerializeToString()))
        request.raw_input_contents.append(made._get_content())
    for name, value in (parameters or {}).items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}[type(value)]
        setattr(request.parameters[name], kind, value)
    return request


def sampling(model, **tensors) -> SamplingParams:
    return model.read(request_of(**tensors)).request.sampling


def test_an_ensembles_request_is_understood(model):
    call = model.read(
        request_of(
            max_tokens=([[7]], "INT32"),
            bad_words=([[""]], "BYTES"),
            stop_words=([["END", "", "."]], "BYTES"),
            end_id=([[2]], "INT32"),
            pad_id=([[2]], "INT32"),
            top_k=([[5]], "INT32"),
            top_p=([[0.5]], "FP32"),
            temperature=([[0.25]], "FP32"),
            length_penalty=([[1.0]], "FP32"),
            repetition_penalty=([[2.0]], "FP32"),
            min_tokens=([[1]], "INT32"),
            presence_penalty=([[0.5]], "FP32"),
            frequency_penalty=([[-0.5]], "FP32"),
            seed=([[2**63 + 1]], "UINT64"),
            return_log_probs=([[True]], "BOOL"),
            return_context_logits=([[False]], "BOOL"),
            return_generation_logits=([[False]], "BOOL"),
            beam_width=([[1]], "INT32"),
            stream=([[True]], "BOOL"),
        )
    )
    assert call.request.stream
    assert call.outputs == ("text_output", "cum_log_probs", "output_log_probs")
    assert call.request.sampling == SamplingParams(
        max_tokens=7,
        stop=("END", "."),
        stop_token_ids=(2,),
        top_k=5,
        top_p=0.5,
        temperature=0.25,
        repetition_penalty=2.0,
        min_tokens=1,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        seed=2**63 + 1,
        logprobs=0,
    )


def test_a_core_models_request_is_understood(model):
    call = model.read(
        request_of(
            text=None,
            input_ids=([[5, 6, 7, 0]], "INT32"),
            input_lengths=([[3]], "INT32"),
            request_output_len=([[9]], "INT32"),
            runtime_top_k=([[1]], "INT32"),
            runtime_top_p=([[0.5]], "FP32"),
            end_id=([[-1]], "INT32"),
            random_seed=([[3]], "UINT64"),
            streaming=([[True]], "BOOL"),
        )
    )
    assert (call.request.prompts, call.request.stream) == ([[5, 6, 7]], True)
    assert call.outputs == ("text_output", "output_ids", "sequence_length")
    assert call.request.sampling == SamplingParams(max_tokens=9, top_k=1, top_p=0.5, seed=3)


def test_an_llm_api_request_is_understood(model):
    call = model.read(
        request_of(
            streaming=([False], "BOOL"),
            sampling_param_max_tokens=([4], "INT32"),
            sampling_param_temperature=([0.5], "FP32"),
            sampling_param_top_p=([0.5], "FP32"),
            sampling_param_top_k=([3], "INT32"),
            sampling_param_stop=(["x"], "BYTES"),
            sampling_param_seed=([1], "UINT64"),
            sampling_param_best_of=([1], "INT32"),
            sampling_param_frequency_penalty=([0.5], "FP32"),
            sampling_param_presence_penalty=([0.5], "FP32"),
            sampling_param_exclude_input_from_output=([True], "BOOL"),
            sampling_param_return_perf_metrics=([False], "BOOL"),
            return_finish_reason=([True], "BOOL"),
            return_stop_reason=([False], "BOOL"),
        )
    )
    assert (call.prefixes, call.outputs) == ((), ("text_output", "finish_reason"))
    assert call.request.sampling == SamplingParams(
        max_tokens=4, temperature=0.5, top_p=0.5, top_k=3, stop=("x",), seed=1, frequency_penalty=0.5, presence_penalty=0.5
    )


@pytest.mark.parametrize("flag", ["return_log_probs", "return_cumulative_logprob"])
@pytest.mark.parametrize(
    ("listed", "outputs"),
    [
        (["cum_log_probs"], ("cum_log_probs",)),
        (["text_output", "cumulative_logprob"], ("text_output", "cumulative_logprob")),
        (["text_output"], ("text_output",)),
    ],
)
def test_an_output_goes_by_the_name_that_is_listed(model, flag, listed, outputs):
    request = request_of(**{flag: ([[True]], "BOOL")})
    for name in listed:
        request.outputs.add(name=name)
    call = model.read(request)
    assert call.outputs == outputs
    assert call.request.sampling.logprobs == (None if outputs == ("text_output",) else 0)
    response = TritonReply(call, str).unary(GenerateChunk([SampleDelta("x", [1], "stop", None, -0.5)], True, [[1]]))
    assert [output.name for output in response.outputs] == list(outputs)
    if call.request.sampling.logprobs == 0:
        assert response.raw_output_contents[-1] == np.float32(-0.5).tobytes()


def test_a_number_may_come_in_any_width_and_once_per_prompt(model):
    for datatype in ("INT32", "INT64", "UINT64"):
        for values in ([6], [[6]], [6, 6], [[6], [6]]):
            assert sampling(model, max_tokens=(values, datatype)).max_tokens == 6
    with pytest.raises(InvalidRequest, match=r"^The input 'max_tokens' must have the same value for every prompt of a request\.$"):
        sampling(model, max_tokens=([6, 7], "INT32"))
    with pytest.raises(InvalidRequest, match="same value"):
        sampling(model, max_tokens=([], "INT32"))


def test_parameters_go_by_the_same_names(model):
    given = {"max_tokens": 3, "stop_words": "END", "bad_words": "", "random_seed": 5, "min_length": 2}
    assert model.read(request_of(parameters=given)).request.sampling == SamplingParams(
        max_tokens=3, stop=("END",), seed=5, min_tokens=2
    )
    assert model.read(request_of(parameters={"stop_words": ""})).request.sampling == SamplingParams()


def test_a_tensor_overrides_a_parameter_and_the_json_both(model):
    request = request_of(
        parameters={"max_tokens": 1, "temperature": 0.5, "top_k": 1},
        max_tokens=([2], "INT32"),
        temperature=([0.75], "FP32"),
        sampling_parameters=(['{"max_tokens": 3}'], "BYTES"),
    )
    assert model.read(request).request.sampling == SamplingParams(max_tokens=3, temperature=0.75, top_k=1)


@pytest.mark.parametrize(
    ("tensors", "kind", "text"),
    [
        (
            {"stream": ([True], "BOOL"), "streaming": ([True], "BOOL")},
            InvalidRequest,
            "The request says 'stream' more than once, the second time as 'streaming'; it must say it once.",
        ),
        (
            {"max_tokens": ([1], "INT32"), "request_output_len": ([1], "INT32")},
            InvalidRequest,
            "The request says 'max_tokens' more than once, the second time as 'request_output_len'; it must say it once.",
        ),
        (
            {"return_context_logits": ([True], "BOOL")},
            Unsupported,
            "The input 'return_context_logits' is not supported yet; leave it out.",
        ),
        ({"beam_width": ([2], "INT32")}, Unsupported, "The sampling parameter 'beam_width' is not supported yet; leave it out."),
        (
            {"max_tokens": ([1.0], "FP32")},
            RejectedRequest,
            "[request id: <id_unknown>] inference input 'max_tokens' data-type is 'FP32', but model 'llm_stream' expects 'INT32'",
        ),
        ({"lora_task_id": ([1], "UINT64")}, RejectedRequest, "unexpected inference input 'lora_task_id' for model 'llm_stream'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(model, tensors, kind, text):
    with pytest.raises(kind) as caught:
        sampling(model, **tensors)
    assert str(caught.value) == text


def test_aliases_are_not_counted_as_inputs_of_the_model(model, config):
    assert not set(ALIASES) & {tensor.name for tensor in config.input}
    with pytest.raises(OctavoError, match=r"between 1 and 12 but got 0 inputs .* missing required input\(s\) \['text_input'\]"):
        model.read(request_of(text=None, max_tokens=([5], "INT32")))


def test_every_alias_leads_to_something_that_is_known(config):
    known = set(SamplingParams.__struct_fields__) | set(UNSUPPORTED)
    assert {option.name for option in OPTIONS.values()} <= known
    assert set(FLAGS.values()) <= {tensor.name for tensor in config.input}


@pytest.mark.parametrize("shape", [[True], [[True]]])
def test_stop_ends_what_has_the_same_id(model, shape):
    call = model.read(request_of(id="r", text=None, stop=(shape, "BOOL")))
    assert call == TritonStop("llm_stream", "r", wants_final=False)
    reply, nothing = StopReply(call, 1), GenerateChunk([], True, [])
    assert reply.unary(nothing) == pb.ModelInferResponse(model_name="llm_stream", model_version="1", id="r")
    assert reply.streamed(nothing) is None
    asking = {"triton_enable_empty_final_response": True}
    call = model.read(request_of(id="r", parameters=asking, stop=(shape, "BOOL"), max_tokens=([[1]], "INT32")))
    message = pb.ModelStreamInferResponse.FromString(StopReply(call, 1).streamed(nothing))
    expected = pb.ModelInferResponse(model_name="llm_stream", id="r")
    expected.parameters["triton_final_response"].bool_param = True
    assert message == pb.ModelStreamInferResponse(infer_response=expected)


def test_stop_needs_an_id_and_false_stops_nothing(model):
    with pytest.raises(InvalidRequest, match=r"^A request with stop must have the id of the requests that it is to end\.$"):
        model.read(request_of(text=None, stop=([True], "BOOL")))
    assert model.read(request_of(stop=([False], "BOOL"))).request.prompts == ["hi"]
    with pytest.raises(InvalidRequest, match="got none of them"):
        model.read(request_of(text=None, stop=([False], "BOOL")))


def test_words_come_as_token_ids(model):
    lists = {"stop_words_list": ([[[7, 8, 9, 6, 0], [1, 3, 4, -1, -1]]], "INT32"), "bad_words_list": ([[[0], [-1]]], "INT32")}
    request = model.read(request_of(**lists, end_id=([[2]], "INT32"))).request
    assert request.sampling.stop_token_ids == (2, 7, 6)
    assert (request.stop_words, request.bad_words) == ([(8, 9)], [])
    lists = {"bad_words_list": ([[7, 8, 9], [1, 3, -1]], "INT32")}
    assert model.read(request_of(**lists)).request.bad_words == [(7,), (8, 9)]


@pytest.mark.parametrize(
    ("name", "rows", "text"),
    [
        ("stop_words_list", [[7, 8], [3, -1]], "must say where each word ends"),
        ("stop_words_list", [[7, 8], [1, 1]], "must say where each word ends"),
        ("bad_words_list", [[7, 8], [2, 1]], "must say where each word ends"),
    ],
)
def test_words_that_cannot_be_are_refused(model, name, rows, text):
    with pytest.raises(InvalidRequest, match=text):
        model.read(request_of(**{name: ([rows], "INT32")}))


def test_outputs_with_an_element_per_token_are_padded_and_measured(model):
    request = request_of(
        text=None, text_input=(["a", "b"], "BYTES"), num_return_sequences=([2, 2], "INT32"), return_stop_reason=([True], "BOOL")
    )
    for name in ("output_ids", "sequence_length", "output_log_probs", "batch_index", "stop_reason"):
        request.outputs.add(name=name)
    call = model.read(request)
    assert call.request.sampling.logprobs == 0
    ids = [[1, 2, 3], [4], [], [5, 6]]
    samples = [SampleDelta("", one, "stop", "end", -1.0, [TokenLogprobs([i], [-i / 2], [1]) for i in one]) for one in ids]
    response = TritonReply(call, str).unary(GenerateChunk(samples, True, [[1], [1]]))
    read = tritonclient.InferResult(response)
    assert read.as_numpy("output_ids").tolist() == [[[1, 2, 3], [4, 0, 0]], [[0, 0, 0], [5, 6, 0]]]
    assert read.as_numpy("output_log_probs")[0].tolist() == [[-0.5, -1.0, -1.5], [-2.0, 0.0, 0.0]]
    assert read.as_numpy("sequence_length").tolist() == [[3, 1], [0, 2]]
    assert read.as_numpy("batch_index").tolist() == [[0], [1]]
    assert read.as_numpy("stop_reason").tolist() == [b"end"] * 4
