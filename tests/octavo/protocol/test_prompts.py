"""Where a prompt may stand: texts, messages or token ids, alone or several in one request; and token ids in the answer."""

import json

import numpy as np
import pytest
import tritonclient.grpc as tritonclient

from octavo.config import DEFAULT_LIMITS
from octavo.errors import InvalidRequest, OctavoError, Unsupported
from octavo.protocol.prompts import read_messages
from octavo.protocol.rejection import RejectedRequest
from octavo.protocol.triton_reply import TritonReply
from octavo.text.request import Conversation, GenerateChunk, SampleDelta
from octavo.wire import pb


def tensor(name, values, datatype, shape=None) -> tritonclient.InferInput:
    array = np.array(values, dtype={"BYTES": object, "BOOL": bool, "INT32": np.int32, "INT64": np.int64}[datatype])
    array = array if shape is None else array.reshape(shape)
    made = tritonclient.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def request_of(*tensors) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="llm_stream")
    for made in tensors:
        request.inputs.append(pb.ModelInferRequest.InferInputTensor.FromString(made._get_tensor().SerializeToString()))
        request.raw_input_contents.append(made._get_content())
    return request


@pytest.mark.parametrize("shape", [[3], [3, 1]])
def test_several_texts_are_several_prompts_in_order(model, shape):
    call = model.read(request_of(tensor("text_input", ["a", "b", "c"], "BYTES", shape)))
    assert call.request.prompts == ["a", "b", "c"]
    assert call.prefixes == ("a", "b", "c")


def test_several_prompts_with_several_samples_are_prompt_after_prompt(model):
    options = tensor("sampling_parameters", ['{"n": 2}'], "BYTES")
    flags = [tensor(f"return_{name}", [True], "BOOL") for name in ("num_input_tokens", "num_output_tokens", "token_ids")]
    call = model.read(request_of(tensor("text_input", ["a", "b"], "BYTES"), options, *flags))
    assert call.prefixes == ("a", "b")
    samples = [SampleDelta(f" {n}", [n] * n, "stop") for n in range(4)]
    response = TritonReply(call, str).unary(GenerateChunk(samples, True, [[5, 6], [7]]))
    result = tritonclient.InferResult(tritonclient.service_pb2.ModelInferResponse.FromString(response.SerializeToString()))
    assert result.as_numpy("text_output").tolist() == [b"a 0", b"a 1", b"b 2", b"b 3"]
    assert result.as_numpy("num_input_tokens").tolist() == [2, 1]
    assert result.as_numpy("num_output_tokens").tolist() == [0, 1, 2, 3]
    assert result.as_numpy("token_ids").tolist() == [1, 2, 2, 3, 3, 3]


def test_token_ids_may_be_few_or_none_in_a_message(model):
    call = model.read(request_of(tensor("text_input", ["a"], "BYTES"), tensor("return_token_ids", [True], "BOOL")))
    reply = TritonReply(call, str)
    for ids in ([], [4, 5]):
        data = reply.streamed(GenerateChunk([SampleDelta("x", ids)], False, [[1]]))
        response = pb.ModelStreamInferResponse.FromString(data).infer_response
        assert list(response.outputs[1].shape) == [len(ids)]
        assert response.raw_output_contents[1] == np.array(ids, np.int32).tobytes()


@pytest.mark.parametrize("datatype", ["INT32", "INT64"])
@pytest.mark.parametrize(
    ("shape", "lengths", "prompts"),
    [
        ([4], None, [[1, 2, 3, 4]]),
        ([1, 4], None, [[1, 2, 3, 4]]),
        ([1, 4], [3], [[1, 2, 3]]),
        ([2, 2], None, [[1, 2], [3, 4]]),
        ([2, 2], [1, 2], [[1], [3, 4]]),
    ],
)
def test_token_ids_are_prompts_too(model, datatype, shape, lengths, prompts):
    tensors = [tensor("input_ids", [1, 2, 3, 4], datatype, shape)]
    if lengths is not None:
        tensors.append(tensor("input_lengths", lengths, "INT32", [len(lengths), 1]))
    call = model.read(request_of(*tensors))
    assert (call.request.prompts, call.prefixes) == (prompts, ())


MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi", "name": "x"}]


def test_messages_are_a_conversation_and_never_come_back(model):
    call = model.read(request_of(tensor("messages", [json.dumps(MESSAGES)], "BYTES")))
    assert (call.request.prompts, call.prefixes) == ([Conversation(MESSAGES)], ())


def test_parts_of_text_are_joined_and_no_content_stays_none():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    given = [{"role": "user", "content": parts}, {"role": "assistant", "tool_calls": []}]
    read = read_messages(json.dumps(given).encode())
    assert read.messages == [{"role": "user", "content": "a\nb"}, {"role": "assistant", "tool_calls": [], "content": None}]
    assert read.num_characters == 3


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"{", "messages must be a JSON list of messages, but it is not valid JSON."),
        (b'[{"role": "user", "content": "\\ud800"}]', "messages must be a JSON list of messages, but it is not valid JSON."),
        (b"[" * 100_000, "messages must be a JSON list of messages, but it is not valid JSON."),
        (b"[]", "messages must be a JSON list of at least one message, like"),
        (b"[1]", "messages must be a JSON list of at least one message, like"),
        (b"{}", "messages must be a JSON list of at least one message, like"),
        (b'[{"content": "x"}]', "messages[0] must have a role that is a string, like 'user'."),
        (b'[{"role": "user", "content": 5}]', "messages[0] must have a content that is a string or a list of parts."),
        (b'[{"role": "user", "content": ["x"]}]', "messages[0] must have parts like"),
        (b" " * (16 * 2**20 + 1), "messages must have at most 16777216 bytes."),
    ],
)
def test_what_is_no_conversation_is_refused_in_a_sentence(data, text):
    with pytest.raises(InvalidRequest) as caught:
        read_messages(data)
    assert str(caught.value).startswith(text)


def test_a_picture_is_not_served_yet():
    with pytest.raises(Unsupported, match=r"messages\[0\] has a part that is no text"):
        read_messages(b'[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]')


TEXT, CHAT = tensor("text_input", ["a"], "BYTES"), tensor("messages", [json.dumps(MESSAGES)], "BYTES")
REFUSED: list[tuple[list, type[OctavoError], str]] = [
    (
        [TEXT, CHAT],
        InvalidRequest,
        "must have its prompt in one of text_input, messages and input_ids, got text_input and messages.",
    ),
    (
        [CHAT, tensor("exclude_input_in_output", [False], "BOOL")],
        InvalidRequest,
        "exclude_input_in_output must be true or absent unless the prompt is text_input.",
    ),
    (
        [tensor("input_ids", [1, 2], "INT32"), tensor("input_lengths", [3], "INT32")],
        InvalidRequest,
        "input_lengths must have one length for each row of input_ids, and none longer than a row.",
    ),
    (
        [tensor("input_ids", [1, 2], "INT32"), tensor("input_lengths", [1, 1], "INT32")],
        InvalidRequest,
        "input_lengths must have one length for each row of input_ids, and none longer than a row.",
    ),
    ([tensor("return_token_ids", [True], "BOOL")], RejectedRequest, "missing required input(s) ['text_input']"),
]


@pytest.mark.parametrize(("tensors", "kind", "text"), REFUSED)
def test_a_prompt_stands_in_one_place(model, tensors, kind, text):
    with pytest.raises(kind) as caught:
        model.read(request_of(*tensors))
    assert text in str(caught.value)


def test_more_elements_than_any_prompt_has_are_refused_before_they_are_read(model):
    request = request_of(tensor("input_ids", [1], "INT32"))
    request.inputs[0].shape[:] = [DEFAULT_LIMITS.elements + 1]
    request.raw_input_contents[0] = bytes(4 * (DEFAULT_LIMITS.elements + 1))
    with pytest.raises(RejectedRequest, match=r"The input 'input_ids' must have at most 4194304 elements, got 4194305\."):
        model.read(request)
    request.inputs[0].shape[:] = [2**62, 0]
    request.raw_input_contents[0] = b""
    with pytest.raises(InvalidRequest):
        model.read(request)
