"""``generate`` and ``generate_stream``: Triton's mapping of JSON to tensors, events as they come, and clients that leave."""

from typing import Any

import pytest
from http_calls import events, generate_body, infer_body, post
from server import Server

GENERATE, STREAM = "/v2/models/tiny/generate", "/v2/models/tiny/generate_stream"


def test_generate_is_infer_in_other_words(server: Server) -> None:
    whole = post(server, "/v2/models/tiny/infer", infer_body()).json["outputs"][0]["data"][0]
    reply = post(server, GENERATE, generate_body())
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json == {"model_name": "tiny", "model_version": "1", "text_output": whole}
    nested = {"text_input": "hello", "parameters": {"temperature": 0, "ignore_eos": True, "max_tokens": 8}}
    assert post(server, "/v2/models/tiny/versions/1/generate", nested).json == reply.json
    text = {"text_input": ["hello"], "sampling_parameters": '{"temperature": 0, "ignore_eos": true, "max_tokens": 8}'}
    assert post(server, GENERATE, text).json == reply.json
    spelled = {"text_input": "hello", "sampling_parameters": {"temperature": 0, "ignore_eos": True, "max_tokens": 8}}
    assert post(server, GENERATE, spelled).json == reply.json
    assert "hello" + post(server, GENERATE, generate_body(stream=True)).json["text_output"] == whole


def test_outputs_of_one_element_are_no_lists(server: Server) -> None:
    flags = {"return_finish_reason": True, "return_num_output_tokens": True, "exclude_input_in_output": True, "id": "q"}
    one = post(server, GENERATE, generate_body(**flags)).json
    assert (one["id"], one["finish_reason"], one["num_output_tokens"]) == ("q", "length", 8)
    two = post(server, GENERATE, generate_body(**flags, n=2, temperature=1.0, seed=1)).json
    assert two["finish_reason"] == ["length", "length"]
    assert len(two["text_output"]) == 2


def test_lists_for_stop_and_details_as_in_the_open_inference_protocol(server: Server) -> None:
    plain = post(server, GENERATE, generate_body(exclude_input_in_output=True)).json["text_output"]
    stop = {"stop": [plain[2], "nowhere"], "details": True}
    body = {"text_input": "hello", "parameters": {"temperature": 0, "max_tokens": 8, **stop}, "exclude_input_in_output": True}
    reply = post(server, GENERATE, body).json
    assert reply["text_output"] == plain[: plain.index(plain[2])]
    assert reply["details"]["finish_reason"] == "stop_sequence"
    tokens = reply["details"]["logprobs"]
    assert [set(token) for token in tokens] == [{"id", "text", "logprob", "special"}] * len(tokens)
    assert all(token["logprob"] <= 0 and not token["special"] for token in tokens)
    assert post(server, GENERATE, generate_body(details=True)).json["details"]["finish_reason"] == "length"


def test_a_stream_is_the_same_text_in_pieces(server: Server) -> None:
    whole = post(server, GENERATE, generate_body(max_tokens=20, exclude_input_in_output=True)).json["text_output"]
    status, *pieces = events(server, STREAM, generate_body(max_tokens=20, stream=True, id="q", return_finish_reason=True))
    assert status == 200
    assert "".join(piece["text_output"] for piece in pieces) == whole
    assert {(piece["id"], piece["model_name"], piece["model_version"]) for piece in pieces} == {("q", "tiny", "1")}
    assert [piece["finish_reason"] for piece in pieces] == ["None"] * (len(pieces) - 1) + ["length"]
    assert len(pieces) > 1


def test_without_stream_there_is_one_event_with_the_prompt(server: Server) -> None:
    whole = post(server, GENERATE, generate_body()).json
    assert list(events(server, STREAM, generate_body())) == [200, whole]


def test_messages_and_token_ids_are_prompts(server: Server) -> None:
    spelled = post(server, GENERATE, generate_body("<user>Hi</user><assistant>", exclude_input_in_output=True)).json
    messages = {**generate_body(), "messages": [{"role": "user", "content": "Hi"}]}
    del messages["text_input"]
    assert post(server, GENERATE, messages).json == spelled
    ids = {**generate_body(return_token_ids=True, return_num_input_tokens=True), "input_ids": [1, 2, 3]}
    del ids["text_input"]
    reply = post(server, GENERATE, ids).json
    assert (reply["num_input_tokens"], len(reply["token_ids"])) == (3, 8)


def test_what_tensorrt_llms_clients_send(server: Server) -> None:
    expected = post(server, GENERATE, generate_body(max_tokens=5, exclude_input_in_output=True)).json["text_output"]
    body = {
        "text_input": "hello",
        "max_tokens": 5,
        "bad_words": "",
        "stop_words": "",
        "pad_id": 2,
        "end_id": [259],
        "temperature": 0,
    }
    streamed = list(events(server, STREAM, {**body, "ignore_eos": True, "streaming": True}))
    assert "".join(piece["text_output"] for piece in streamed[1:]) == expected
    whole = post(server, GENERATE, {**body, "ignore_eos": True, "stop_words": [expected[2], "nowhere"]}).json
    assert whole["text_output"] == "hello" + expected[: expected.index(expected[2])]


def test_stop_ends_a_request_of_the_same_id(server: Server) -> None:
    reading = events(server, STREAM, generate_body(max_tokens=1900, stream=True, id="endless"))
    next(reading), next(reading)
    assert post(server, GENERATE, {"id": "endless", "stop": True}).status == 200
    assert list(reading)[-1] == {"error": "Request was cancelled"}
    server.wait_until_free()


MISTAKES: list[tuple[object, int, str]] = [
    (b"", 400, "failed to parse the request JSON buffer: The document is empty."),
    (b"[1]", 400, "it must be a JSON object"),
    ({}, 400, "missing required input(s) ['text_input']"),
    ({"text_input": 1}, 400, "Unable to parse 'data': attempt to access JSON non-string as string"),
    ({"text_input": []}, 400, "The schema can not convert input 'text_input' to tensor with proper shape"),
    (generate_body(stream="yes"), 400, "Unable to parse 'data': attempt to access JSON non-boolean as boolean"),
    (generate_body(stream=[True, True]), 400, "The schema can not convert input 'stream' to tensor with proper shape"),
    (generate_body(top_p=[1]), 400, "parameter 'top_p' has invalid type. It should be either 'int', 'bool', or 'string'."),
    (generate_body(foo={"bar": 1}), 400, "parameter 'foo' has invalid type."),
    (generate_body(foo="bar"), 400, "Unknown sampling parameter 'foo'"),
    (generate_body(parameters=[1]), 400, "Expected JSON object for keyword: 'parameters'"),
    (generate_body(id=1), 400, "Unable to parse 'id'"),
    (generate_body(details="yes"), 400, "details must be true or false."),
    (b'{"messages": [{"role": "user", "\xa2ontent": "Hi"}]}', 400, "The input 'messages' must be valid UTF-8"),
    (generate_body(stop=["a"] * 100), 400, "stop must hold at most 32 strings"),
    (generate_body(stop=[{}] * 10), 400, "stop must be a string or a list of strings"),
    (generate_body(logit_bias={"x": 1}), 400, "logit_bias"),
    (generate_body(sampling_parameters="{"), 400, "sampling_parameters must be a JSON object"),
    (generate_body(**{str(i): i for i in range(1000)}), 400, "at most 64 keys"),
    (generate_body(parameters={str(i): i for i in range(1000)}), 400, "at most 64 parameters"),
    (generate_body(temperature=-1), 400, "temperature"),
    (generate_body(lora_name="x"), 501, "LoRA feature is not enabled."),
]


@pytest.mark.parametrize("path", [GENERATE, STREAM])
@pytest.mark.parametrize(("body", "status", "text"), MISTAKES)
def test_a_mistake_has_its_status_and_text(server: Server, path: str, body: object, status: int, text: str) -> None:
    got, said = post(server, path, body).refusal
    assert got == status
    assert text in said


def test_streaming_with_the_prompt_is_refused_as_vllm_backend_does(server: Server) -> None:
    text = "Error generating stream: When streaming, `exclude_input_in_output` = False is not allowed."
    reply = post(server, STREAM, generate_body(stream=True, exclude_input_in_output=False))
    assert reply.refusal == (400, text)


def test_the_first_piece_decides_the_status(server: Server) -> None:
    """A long text is tokenised beside everything else, so that its refusal comes when a reply could have begun."""
    status, event = events(server, STREAM, generate_body("x" * 10_000, stream=True))
    assert status == 400
    assert "2048" in event["error"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_reader_that_leaves_frees_its_pages(server: Server, stream: bool) -> None:
    server.wait_until_free()
    cancelled = server.metric("nv_inference_request_failure", reason="CANCELED")
    reading = events(server, STREAM, generate_body(max_tokens=1900, stream=True))
    assert next(reading) == 200
    if stream:
        next(reading)
    server.wait_until(lambda: server.in_flight() == 1, "the request to run")
    reading.close()
    server.wait_until_free()
    assert server.metric("nv_inference_request_failure", reason="CANCELED") == cancelled + 1


@pytest.mark.parametrize(("path", "body"), [(GENERATE, generate_body), ("/v2/models/tiny/infer", infer_body)])
def test_a_caller_that_does_not_wait_for_the_answer_frees_its_pages(server: Server, path: str, body: Any) -> None:
    import http.client
    import json

    server.wait_until_free()
    cancelled = server.metric("nv_inference_request_failure", reason="CANCELED")
    connection = http.client.HTTPConnection(server.http)
    connection.request("POST", path, json.dumps(body(max_tokens=1900)).encode())
    server.wait_until(lambda: server.in_flight() == 1, "the request to run")
    connection.close()
    server.wait_until_free()
    assert server.metric("nv_inference_request_failure", reason="CANCELED") == cancelled + 1


@pytest.mark.parametrize("path", [GENERATE, STREAM])
def test_a_caller_that_closes_its_side_gets_the_whole_answer(server: Server, path: str) -> None:
    """As ``nc -N`` does, and the health checks of some balancers."""
    import json
    import socket

    host, port = server.http.split(":")
    body = json.dumps(generate_body(max_tokens=400, stream=path == STREAM)).encode()
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body))
        connection.shutdown(socket.SHUT_WR)
        said = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert said.count(b"HTTP/1.1 200 OK\r\n") == 1
    assert said.endswith(b"0\r\n\r\n") if path == STREAM else b'"text_output"' in said
