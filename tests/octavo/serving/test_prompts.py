"""Prompts in every form over gRPC: messages, several texts, token ids; and token ids back."""

import json
from collections import defaultdict

import numpy as np
import pytest
import tritonclient.grpc as triton
from calls import FINAL, Stream, add_flag, add_text, infer_request
from server import Server
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
SPELLED = "<system>Be brief.</system><user>Hi</user><assistant>"
GREEDY = {"max_tokens": 12, "temperature": 0.0, "ignore_eos": True}
TYPES = {"BYTES": object, "BOOL": bool, "INT32": np.int32, "INT64": np.int64}


def tensor(name: str, values: object, datatype: str) -> triton.InferInput:
    array = np.array(values, dtype=TYPES[datatype])
    return triton.InferInput(name, list(array.shape), datatype).set_data_from_numpy(array)


EXCLUDE = tensor("exclude_input_in_output", [True], "BOOL")
COUNTS = [tensor(f"return_{name}", [True], "BOOL") for name in ("num_input_tokens", "num_output_tokens", "token_ids")]


def answer(client: triton.InferenceServerClient, *tensors: triton.InferInput, **options: object) -> triton.InferResult:
    return client.infer("tiny", list(tensors), parameters={**GREEDY, **options})


def texts(client: triton.InferenceServerClient, *tensors: triton.InferInput, **options: object) -> list[bytes]:
    return answer(client, *tensors, **options).as_numpy("text_output").tolist()


def test_messages_are_spelled_by_the_models_template(client: triton.InferenceServerClient) -> None:
    chat = answer(client, tensor("messages", [json.dumps(MESSAGES)], "BYTES"), *COUNTS)
    assert chat.as_numpy("text_output").tolist() == texts(client, tensor("text_input", [SPELLED], "BYTES"), EXCLUDE)
    assert chat.as_numpy("num_input_tokens").tolist() == [len(SPELLED)]


def test_messages_stream(server: Server, client: triton.InferenceServerClient) -> None:
    request = infer_request(max_tokens=12)
    del request.inputs[0], request.raw_input_contents[0]
    add_text(request, "messages", json.dumps(MESSAGES).encode())
    with Stream(server.grpc) as stream:
        said = texts_by_row(stream.send(request).rest())
    assert said == {0: texts(client, tensor("messages", [json.dumps(MESSAGES)], "BYTES"))[0]}


def texts_by_row(messages: list[pb.ModelStreamInferResponse]) -> dict[int, bytes]:
    """What was streamed for each element of ``text_output``; the last message and no other is final."""
    said: dict[int, bytes] = defaultdict(bytes)
    for message in messages:
        for row, text in enumerate(triton.InferResult(message.infer_response).as_numpy("text_output").tolist()):
            said[row] += text
    finals = [message.infer_response.parameters[FINAL].bool_param for message in messages]
    assert finals == [False] * (len(finals) - 1) + [True]
    return dict(said)


def test_a_model_without_a_template_takes_no_messages(client: triton.InferenceServerClient) -> None:
    client.load_model("untemplated")
    with pytest.raises(InferenceServerException) as caught:
        client.infer("untemplated", [tensor("messages", [json.dumps(MESSAGES)], "BYTES")])
    text = "The model has no chat template, so it takes a prompt as text or token ids and no messages."
    assert (caught.value.status(), caught.value.message()) == ("StatusCode.INVALID_ARGUMENT", text)
    client.unload_model("untemplated")


def test_what_the_template_refuses_is_the_clients_mistake(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as caught:
        answer(client, tensor("messages", ['[{"role": "stranger", "content": "x"}]'], "BYTES"))
    text = "The model's chat template refuses these messages: No role is called stranger."
    assert (caught.value.status(), caught.value.message()) == ("StatusCode.INVALID_ARGUMENT", text)


@pytest.mark.parametrize("shape", [[3], [3, 1]])
def test_several_texts_are_answered_in_order(client: triton.InferenceServerClient, shape: list[int]) -> None:
    prompts = ["one", "number two", "3"]
    alone = [texts(client, tensor("text_input", [prompt], "BYTES"))[0] for prompt in prompts]
    together = answer(client, tensor("text_input", np.array(prompts, object).reshape(shape), "BYTES"), *COUNTS)
    assert together.as_numpy("text_output").tolist() == alone
    assert together.as_numpy("num_input_tokens").tolist() == [3, 10, 1]
    assert together.as_numpy("num_output_tokens").tolist() == [12, 12, 12]


def test_several_samples_of_several_texts_are_prompt_after_prompt(client: triton.InferenceServerClient) -> None:
    drawn = {"n": 2, "temperature": 1.0, "seed": 3}
    alone = [text for prompt in ("one", "two") for text in texts(client, tensor("text_input", [prompt], "BYTES"), **drawn)]
    assert texts(client, tensor("text_input", ["one", "two"], "BYTES"), **drawn) == alone
    assert [text[:3] for text in alone] == [b"one", b"one", b"two", b"two"]


def test_several_texts_stream_each_in_its_place(server: Server, client: triton.InferenceServerClient) -> None:
    prompts = ["one", "number two", "3"]
    request = infer_request(max_tokens=12)
    packed = tensor("text_input", prompts, "BYTES")
    request.inputs[0].shape[:] = [3]
    request.raw_input_contents[0] = packed._get_content()
    with Stream(server.grpc) as stream:
        said = texts_by_row(stream.send(request).rest())
    assert list(said.values()) == texts(client, packed, EXCLUDE)


def test_one_bad_prompt_refuses_them_all(server: Server, client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="The prompt must hold at least one token"):
        answer(client, tensor("text_input", ["good", ""], "BYTES"))
    server.wait_until_free()


@pytest.mark.parametrize("datatype", ["INT32", "INT64"])
def test_token_ids_go_in_and_come_out(client: triton.InferenceServerClient, datatype: str) -> None:
    """The tiny model's tokens are bytes in the order of their spelling; what its text says decides nothing here."""
    first = answer(client, tensor("text_input", ["hello"], "BYTES"), *COUNTS, EXCLUDE)
    ids = first.as_numpy("token_ids")
    assert (ids.dtype, ids.shape) == (np.int32, (12,))
    on = answer(client, tensor("input_ids", ids, datatype), *COUNTS)
    assert on.as_numpy("num_input_tokens").tolist() == [12]
    rows = answer(client, tensor("input_ids", [ids, ids[::-1]], datatype), *COUNTS)
    assert rows.as_numpy("num_input_tokens").tolist() == [12, 12]
    assert rows.as_numpy("token_ids")[:12].tolist() == on.as_numpy("token_ids").tolist()
    assert rows.as_numpy("text_output").tolist()[0] == on.as_numpy("text_output").tolist()[0]


def test_token_ids_stream(server: Server, client: triton.InferenceServerClient) -> None:
    request = infer_request("hello", 12)
    add_flag(request, "return_token_ids", True)
    with Stream(server.grpc) as stream:
        messages = stream.send(request).rest()
    streamed = np.concatenate([triton.InferResult(m.infer_response).as_numpy("token_ids") for m in messages])
    whole = answer(client, tensor("text_input", ["hello"], "BYTES"), *COUNTS)
    assert streamed.tolist() == whole.as_numpy("token_ids").tolist()


def test_token_ids_outside_the_vocabulary_are_refused(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="must hold token ids between 0 and 259, the model's vocabulary"):
        answer(client, tensor("input_ids", [5, 260], "INT32"))
