"""ModelStreamInfer: interleaving, ids, final flags, in-band errors, half-close, backpressure."""

import queue
import random
import threading
import time
from collections import Counter, defaultdict

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from calls import FINAL, Stream, add_flag, infer_request, is_final, text_of
from server import Server

UNKNOWN = "Request for unknown model: 'nope' is not found"


def unary_text(client: triton.InferenceServerClient, prompt: str, max_tokens: int) -> bytes:
    request = infer_request(prompt, max_tokens, stream=False)
    add_flag(request, "exclude_input_in_output", True)
    return text_of(client._client_stub.ModelInfer(request))


def test_tritonclient_streams(client: triton.InferenceServerClient) -> None:
    answers: queue.SimpleQueue = queue.SimpleQueue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    text = triton.InferInput("text_input", [1], "BYTES")
    text.set_data_from_numpy(np.array([b"hello"], dtype=object))
    stream = triton.InferInput("stream", [1], "BOOL")
    stream.set_data_from_numpy(np.array([True]))
    parameters = {"max_tokens": 12, "temperature": "0", "ignore_eos": True}
    client.async_stream_infer("tiny", [text, stream], request_id="r", parameters=parameters)
    said = b""
    while True:
        result, error = answers.get(timeout=30)
        assert error is None
        response = result.get_response()
        assert (response.model_name, response.model_version, response.id) == ("tiny", "1", "r")
        said += result.as_numpy("text_output")[0]
        if response.parameters[FINAL].bool_param:
            break
    client.stop_stream()
    assert said == unary_text(client, "hello", 12)


def test_requests_of_one_stream_interleave_and_stay_apart(server: Server, client: triton.InferenceServerClient) -> None:
    prompts = {f"request {number}": number for number in range(4)}
    with Stream(server.grpc) as stream:
        stream.send(*(infer_request(prompt, 60, request_id=prompt) for prompt in prompts))
        messages = stream.rest()
    texts: dict[str, bytes] = defaultdict(bytes)
    for message in messages:
        texts[message.infer_response.id] += text_of(message.infer_response)
    order = [message.infer_response.id for message in messages]
    assert order != sorted(order)
    assert texts == {prompt: unary_text(client, prompt, 60) for prompt in prompts}
    assert Counter(m.infer_response.id for m in messages if is_final(m)) == dict.fromkeys(prompts, 1)


def test_ids_may_repeat_and_be_empty(server: Server) -> None:
    ids = ["same", "same", "", "", "", "alone"]
    with Stream(server.grpc) as stream:
        messages = stream.send(*(infer_request(request_id=one) for one in ids)).rest()
    assert Counter(m.infer_response.id for m in messages if is_final(m)) == Counter(ids)


def test_the_final_flag_rides_on_the_last_content(server: Server) -> None:
    plain, asking = infer_request(request_id="plain"), infer_request(request_id="asking")
    asking.parameters["triton_enable_empty_final_response"].bool_param = True
    with Stream(server.grpc) as stream:
        messages = stream.send(plain, asking).rest()
    for one in ("plain", "asking"):
        mine = [m for m in messages if m.infer_response.id == one]
        assert [is_final(m) for m in mine] == [False] * (len(mine) - 1) + [True]
        assert all(m.infer_response.outputs for m in mine)


def test_a_request_that_is_not_streamed_is_answered_once(server: Server) -> None:
    with Stream(server.grpc) as stream:
        (message,) = stream.send(infer_request("hello", 8, stream=False)).rest()
    assert is_final(message)
    assert text_of(message.infer_response).startswith(b"hello")


def test_bad_requests_are_answered_in_band_and_the_stream_lives_on(server: Server) -> None:
    wrong_shape = infer_request(request_id="shape")
    wrong_shape.inputs[0].shape[:] = [1, 2]
    wrong_option = infer_request(request_id="option", temperature=-1)
    with Stream(server.grpc) as stream:
        stream.send(infer_request(request_id="unknown", model="nope"))
        message = next(stream)
        assert (message.error_message, message.infer_response.id) == (UNKNOWN, "unknown")
        assert message.infer_response.model_name == ""
        assert not message.infer_response.parameters
        message = next(stream.send(wrong_shape))
        text = "[request id: shape] unexpected shape for input 'text_input' for model 'tiny'. Expected [1], got [1,2]. "
        assert (message.error_message, message.infer_response.id) == (text, "shape")
        message = next(stream.send(wrong_option))
        assert message.error_message == "temperature must be between 0.0 and 10000.0, got -1.0."
        assert (message.infer_response.id, message.infer_response.model_name, is_final(message)) == ("option", "tiny", True)
        good = stream.send(infer_request(request_id="good")).rest()
    assert is_final(good[-1])
    assert not any(m.error_message for m in good)


def test_bytes_that_are_no_request_harm_nobody(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        good = infer_request(request_id="good").SerializeToString()
        call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        from tritonclient.grpc import service_pb2

        answers = [service_pb2.ModelStreamInferResponse.FromString(m) for m in call(iter([good, b"\xff\xff", good]), timeout=30)]
    assert [m.error_message for m in answers if m.error_message] == ["Unable to parse request"]
    assert sum(is_final(m) for m in answers if m.infer_response.id == "good") == 2


def test_errors_as_status_end_the_stream_for_a_model_error_only(server: Server) -> None:
    with Stream(server.grpc, metadata=[("triton_grpc_error", "true")]) as stream:
        assert next(stream.send(infer_request(model="nope"))).error_message == UNKNOWN
        stream.send(infer_request(temperature=-1))
        text = "temperature must be between 0.0 and 10000.0, got -1.0."
        assert stream.status() == (grpc.StatusCode.INVALID_ARGUMENT, text)


def test_half_close_finishes_what_is_open(server: Server) -> None:
    with Stream(server.grpc) as stream:
        messages = stream.send(*(infer_request(max_tokens=100, request_id=str(n)) for n in range(5))).rest()
    assert sum(map(is_final, messages)) == 5


def test_an_empty_stream_ends_well(server: Server) -> None:
    with Stream(server.grpc) as stream:
        assert stream.rest() == []


def test_more_requests_than_a_stream_may_have_open_wait_their_turn(server: Server) -> None:
    """The server was started with --grpc-max-stream-requests=8."""
    most, finals = 0.0, 0
    with Stream(server.grpc) as stream:
        stream.send(*(infer_request(max_tokens=40, request_id=str(n)) for n in range(20)))
        while finals < 20:
            if is_final(next(stream)):
                finals += 1
                most = max(most, server.in_flight())
        assert stream.rest() == []
    assert 0 < most <= 8


def test_what_a_slow_reader_does_not_read_is_merged(server: Server, client: triton.InferenceServerClient) -> None:
    """With 20 logprobs a token's message has some 2 kB, of which a narrow stream holds few."""
    before = server.metric("nv_inference_request_success")
    request = infer_request("slow", 150, logprobs=20)
    add_flag(request, "return_logprobs", True)
    with Stream(server.grpc, narrow=True) as stream:
        stream.send(request)
        finished = "the engine to finish"
        server.wait_until(lambda: server.metric("nv_inference_request_success") > before, finished, seconds=60)
        messages = stream.rest()
    assert len(messages) < 100
    assert b"".join(text_of(m.infer_response) for m in messages) == unary_text(client, "slow", 150)


@pytest.mark.parametrize("end", ["cancel", "deadline", "disconnect"])
def test_who_leaves_takes_their_pages_along(server: Server, end: str) -> None:
    server.wait_until_free()
    cancelled = server.metric("nv_inference_request_failure", reason="CANCELED")
    with Stream(server.grpc, timeout=5 if end == "deadline" else 60) as stream:
        stream.send(*(infer_request("x" * 40, 1900, str(n), n=32, temperature=1.0) for n in range(4)))
        next(stream)
        assert server.metric("vllm:num_requests_running") > 0
        if end == "cancel":
            stream.call.cancel()
            assert stream.status()[0] is grpc.StatusCode.CANCELLED
        elif end == "deadline":
            assert stream.status()[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        gone = time.monotonic()
        if end == "disconnect":
            stream._channel.close()
        server.wait_until_free()
    assert time.monotonic() - gone < 20
    assert server.metric("nv_inference_request_failure", reason="CANCELED") == cancelled + 4


def test_sixty_four_streams_half_of_them_cancelled_at_random(server: Server) -> None:
    server.wait_until_free()
    succeeded = server.metric("nv_inference_request_success")
    cancelled = server.metric("nv_inference_request_failure", reason="CANCELED")
    rng = random.Random(0)
    leave_after = [rng.randrange(1, 20) if number % 2 else None for number in range(64)]
    complete: list[int] = []

    def one(number: int, leave: int | None) -> None:
        with Stream(server.grpc, timeout=None) as stream:
            stream.send(infer_request(f"prompt of {number % 7}", 1900 if leave else 40))
            for count, message in enumerate(stream, start=1):
                if count == leave:
                    stream.call.cancel()
                    return
                if is_final(message):
                    complete.append(number)
                    return

    threads = [threading.Thread(target=one, args=(number, leave)) for number, leave in enumerate(leave_after)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.wait_until_free()
    assert sorted(complete) == list(range(0, 64, 2))
    assert server.metric("nv_inference_request_success") == succeeded + 32
    assert server.metric("nv_inference_request_failure", reason="CANCELED") == cancelled + 32


def test_priority_decides_who_of_those_that_wait_is_next(server: Server, client: triton.InferenceServerClient) -> None:
    client.load_model("ranked")
    with Stream(server.grpc) as stream:
        next(stream.send(infer_request(max_tokens=400, model="ranked", request_id="runs")))
        for name, level in (("default", 0), ("last", 3), ("first", 1), ("default too", 2)):
            request = infer_request(model="ranked", request_id=name)
            request.parameters["priority"].uint64_param = level
            stream.send(request)
        ended = [message.infer_response.id for message in stream.rest() if is_final(message)]
    assert ended == ["runs", "first", "default", "default too", "last"]
    client.unload_model("ranked")
