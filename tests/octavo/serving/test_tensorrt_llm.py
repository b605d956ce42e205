"""Clients of TensorRT-LLM's models: their tensor names, shapes and way to cancel."""

import itertools
import queue
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from calls import FINAL, Stream, add_flag, infer_request, is_final
from server import Server, running
from tritonclient.utils import InferenceServerException

CANCELLED = "Request was cancelled"
TYPES = {"BYTES": object, "BOOL": bool, "INT32": np.int32, "UINT64": np.uint64, "FP32": np.float32}


def tensors(**values: tuple[object, str]) -> list[triton.InferInput]:
    """Inputs as those clients shape them: [1, 1], or [1, k] for a list."""
    made = []
    for name, (value, datatype) in values.items():
        array = np.array([value if isinstance(value, list) else [value]], dtype=TYPES[datatype])
        made.append(triton.InferInput(name, list(array.shape), datatype).set_data_from_numpy(array))
    return made


def test_an_ensembles_client_is_answered(client: triton.InferenceServerClient) -> None:
    given = tensors(
        text_input=("hello", "BYTES"),
        max_tokens=(9, "INT32"),
        bad_words=("", "BYTES"),
        stop_words=([""], "BYTES"),
        temperature=(1.0, "FP32"),
        top_k=(1, "INT32"),
        seed=(5, "UINT64"),
        end_id=(256, "INT32"),
        pad_id=(256, "INT32"),
        beam_width=(1, "INT32"),
        return_log_probs=(True, "BOOL"),
    )
    result = client.infer("tiny", given)
    (said,) = result.as_numpy("text_output").tolist()
    assert result.as_numpy("cum_log_probs")[0] < 0
    text = triton.InferInput("text_input", [1], "BYTES").set_data_from_numpy(np.array(["hello"], object))
    (ours,) = client.infer("tiny", [text], parameters={"max_tokens": 9, "temperature": 0.0}).as_numpy("text_output").tolist()
    assert said == ours


def test_bad_words_are_not_written(client: triton.InferenceServerClient) -> None:
    def said(*words: str) -> str:
        given = tensors(text_input=("hello", "BYTES"), max_tokens=(60, "INT32"), top_k=(1, "INT32"), bad_words=([*words], "BYTES"))
        (text,) = client.infer("tiny", given).as_numpy("text_output").tolist()
        return str(text.decode()[len("hello") :])

    free = said("")
    word = next(free[at : at + 2] for at in range(len(free) - 1) if free[at : at + 2].isascii())
    assert word not in said(word, "no such word")


def test_a_core_models_client_gets_token_ids(client: triton.InferenceServerClient) -> None:
    given = tensors(input_ids=([104, 101], "INT32"), request_output_len=(5, "INT32"), runtime_top_k=(1, "INT32"))
    ids = client.infer("tiny", given)
    assert ids.as_numpy("output_ids").shape == (1, 1, 5)
    assert ids.as_numpy("sequence_length").tolist() == [[5]]
    listed = [triton.InferRequestedOutput(name) for name in ("output_ids", "output_log_probs", "batch_index")]
    scored = client.infer("tiny", given, outputs=listed)
    assert scored.as_numpy("output_ids").tolist() == ids.as_numpy("output_ids").tolist()
    assert scored.as_numpy("output_log_probs").shape == (1, 1, 5)
    assert (scored.as_numpy("output_log_probs") < 0).all()
    assert scored.as_numpy("batch_index").tolist() == [[0]]
    assert scored.as_numpy("text_output") is None


def test_an_llm_api_client_streams(client: triton.InferenceServerClient) -> None:
    answers: queue.SimpleQueue = queue.SimpleQueue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    sampling = {"sampling_param_max_tokens": (7, "INT32"), "sampling_param_top_k": (1, "INT32")}
    given = tensors(text_input=("hello", "BYTES"), streaming=(True, "BOOL"), **sampling)
    client.async_stream_infer("tiny", given, request_id="1")
    count = 0
    while True:
        result, error = answers.get(timeout=30)
        assert error is None
        count += 1
        if result.get_response().parameters[FINAL].bool_param:
            break
    client.stop_stream()
    assert 1 < count <= 7


def test_stop_words_stop(client: triton.InferenceServerClient) -> None:
    whole = tensors(text_input=("hello", "BYTES"), max_tokens=(30, "INT32"), top_k=(1, "INT32"))
    (said,) = client.infer("tiny", whole).as_numpy("text_output").tolist()
    text = said.decode(errors="replace")[5:]
    word = next(character for character in text if character not in text[:3] and character != "\ufffd")
    stopped = client.infer("tiny", whole + tensors(stop_words=([word, ""], "BYTES"))).as_numpy("text_output").tolist()
    assert stopped[0].decode(errors="replace") == "hello" + text[: text.index(word)]


def token_words(*words: list[int]) -> list[list[int]]:
    """As those clients write words of token ids: all of them, and where each ends."""
    ids = [token_id for word in words for token_id in word]
    ends = list(itertools.accumulate(map(len, words)))
    return [ids, ends + [-1] * (len(ids) - len(ends))]


def said_ids(client: triton.InferenceServerClient, length: int = 30, **more: tuple[object, str]) -> triton.InferResult:
    given = {"text_input": ("hello", "BYTES"), "request_output_len": (length, "INT32"), "runtime_top_k": (1, "INT32")}
    names = ("output_ids", "text_output", "stop_reason", "finish_reason")
    listed = [triton.InferRequestedOutput(name) for name in names]
    asking = dict.fromkeys(("return_stop_reason", "return_finish_reason", "exclude_input_in_output"), (True, "BOOL"))
    return client.infer("tiny", tensors(**given, **asking, **more), outputs=listed)


def ids_of(result: triton.InferResult) -> list[int]:
    return result.as_numpy("output_ids").ravel().tolist()


def new_pair(ids: list[int]) -> int:
    """Where two tokens stand that do not stand before."""
    pairs = list(itertools.pairwise(ids))
    return next(at for at in range(3, len(pairs)) if pairs.index(pairs[at]) == at)


def test_stop_words_of_token_ids_stop_and_are_not_in_the_text(client: triton.InferenceServerClient) -> None:
    ids = ids_of(said_ids(client))
    at = new_pair(ids)
    word = ids[at : at + 2]
    words = {"stop_words_list": (token_words([word[0], 1, word[1]], word, [259]), "INT32")}
    stopped = said_ids(client, **words)
    assert ids_of(stopped) == ids[: at + 2]
    assert stopped.as_numpy("text_output").tolist() == said_ids(client, at).as_numpy("text_output").tolist()
    assert stopped.as_numpy("stop_reason").tolist() == [str(word).encode()]
    assert stopped.as_numpy("finish_reason").tolist() == [b"stop"]


def test_bad_words_of_token_ids_are_not_written(client: triton.InferenceServerClient) -> None:
    ids = ids_of(said_ids(client))
    at = new_pair(ids)
    other = ids_of(said_ids(client, bad_words_list=(token_words(ids[at : at + 2], [257, 258, 259]), "INT32")))
    assert other[: at + 1] == ids[: at + 1]
    assert ids[at : at + 2] not in map(list, itertools.pairwise(other))


@pytest.mark.parametrize("name", ["stop_words_list", "bad_words_list"])
def test_words_of_unknown_token_ids_are_refused(client: triton.InferenceServerClient, name: str) -> None:
    for words in (token_words([5, 70000]), token_words([5, -3])):
        with pytest.raises(InferenceServerException, match="words must hold token ids between 0 and"):
            said_ids(client, **{name: (words, "INT32")})
    with pytest.raises(InferenceServerException, match=r"A request must hold at most \d+ (stop|bad) words of 1 to"):
        said_ids(client, **{name: (token_words(*[[5, 6]] * 2000), "INT32")})


def stop_request(request_id: str, model: str = "tiny"):
    request = infer_request(request_id=request_id, model=model)
    del request.inputs[:], request.raw_input_contents[:]
    add_flag(request, "stop", True)
    return request


def test_stop_ends_every_request_of_its_id_and_says_nothing_itself(server: Server) -> None:
    cancelled = server.metric("nv_inference_request_failure", reason="CANCELED")
    with Stream(server.grpc) as stream:
        stream.send(*(infer_request(max_tokens=1900, request_id=one) for one in ("a", "a", "b")))
        begun = {next(stream).infer_response.id for _ in range(3)}
        while begun != {"a", "b"}:
            begun.add(next(stream).infer_response.id)
        stream.send(stop_request("a"), stop_request("unknown"), stop_request("b", model="nope"))
        ends: list[tuple[str, str]] = []
        while len(ends) < 3:
            message = next(stream)
            assert message.error_message or message.infer_response.outputs
            if message.error_message:
                ends.append((message.infer_response.id, message.error_message))
                assert is_final(message) or "unknown model" in message.error_message
        assert sorted(ends) == [
            ("a", CANCELLED),
            ("a", CANCELLED),
            ("b", "Request for unknown model: 'nope' is not found"),
        ]
        assert next(stream).infer_response.id == "b"
    server.wait_until_free()
    server.wait_until(lambda: server.metric("nv_inference_request_failure", reason="CANCELED") == cancelled + 3, "three cancelled")


def test_a_stop_that_asks_for_it_gets_an_empty_final_message(server: Server) -> None:
    asking = stop_request("nobody")
    asking.parameters["triton_enable_empty_final_response"].bool_param = True
    with Stream(server.grpc) as stream:
        (message,) = stream.send(stop_request("nobody"), asking).rest()
    response = message.infer_response
    assert (response.model_name, response.model_version, response.id, len(response.outputs)) == ("tiny", "", "nobody", 0)
    assert is_final(message)


def test_a_unary_stop_is_answered_empty_and_needs_an_id(server: Server, client: triton.InferenceServerClient) -> None:
    stop = tensors(stop=(True, "BOOL"))
    with Stream(server.grpc) as stream:
        next(stream.send(infer_request(max_tokens=1900, request_id="mine")))
        response = client.infer("tiny", stop, request_id="mine").get_response()
        assert (response.model_name, response.model_version, response.id, len(response.outputs)) == ("tiny", "1", "mine", 0)
        assert stream.rest()[-1].error_message == CANCELLED
    with pytest.raises(InferenceServerException, match="A request with stop must have the id of the requests that it is to end"):
        client.infer("tiny", stop)


@pytest.fixture(scope="module")
def pair(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two front ends."""
    flags = ("--model-control-mode=explicit", "--load-model=tiny", "--front-ends=2")
    with running(repository, *flags, log=tmp_path_factory.mktemp("log") / "pair.log") as server:
        yield server


def test_stop_reaches_the_other_front_end(pair: Server) -> None:
    """The kernel spreads connections over the front ends, so some of many stop what is open in the other one."""
    for number in range(8):
        name = f"r{number}"
        with Stream(pair.grpc) as stream, Stream(pair.grpc) as other:
            next(stream.send(infer_request(max_tokens=1900, request_id=name)))
            assert other.send(stop_request(name)).rest() == []
            last = list(stream.half_close())[-1]
        assert last.error_message == CANCELLED
