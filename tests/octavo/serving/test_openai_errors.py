"""What the OpenAI API refuses, in OpenAI's words: each mistake with its status, its field and its code."""

import functools
import http.client
import json
import re
import threading
from typing import Any

import pytest
import tritonclient.grpc as triton
from http_calls import call, post
from openai import NotFoundError, RateLimitError
from openai_calls import (
    CHAT,
    COMPLETIONS,
    RESPONSES,
    chat_body,
    completion_body,
    connected,
    error_of,
    event_lines,
    refused,
    responses_body,
)
from server import Server

TOOL = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
LARGE = [{"type": "function", "function": {"name": "f", "description": "x" * 262_144}}]
NESTED: Any = functools.reduce(lambda inner, _: {"a": inner}, range(300), {})
NONSENSE = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "nonsense"}}}
TOKENIZE = "/v1/tokenize"


def allowed(mode: str, *names: Any) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def demanding(parameters: dict[str, Any]) -> dict[str, Any]:
    """A body that has a tool of these parameters called."""
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    return chat_body(tools=[tool], tool_choice="required", ignore_eos=False)


def with_raw(body: dict[str, Any], name: str, value: bytes) -> bytes:
    """``body`` with a field whose value Python would not write."""
    return json.dumps(body)[:-1].encode() + b', "' + name.encode() + b'": ' + value + b"}"


MISTAKES: list[tuple[str, object, str | None, str | None, str]] = [
    (CHAT, b"", None, None, "The request body must be one JSON object, but it is not valid JSON."),
    (CHAT, b"[1]", None, None, "The request body must be a JSON object."),
    (CHAT, b'{"model": "tiny", "messages": [{"role": "user", "\xa2": 1}]}', None, None, "it is not valid JSON"),
    (CHAT, b"[" * 10_000, None, None, "The request body must be a JSON object."),
    (CHAT, {"model": "tiny"}, "messages", "missing_required_parameter", "Missing required parameter: 'messages'."),
    (CHAT, {"messages": []}, "model", "missing_required_parameter", "Missing required parameter: 'model'."),
    (CHAT, chat_body(messages=[]), "messages", "empty_array", "at least one message"),
    (CHAT, chat_body(messages=[{"role": "user"}] * 16385), "messages", "array_above_max_length", "at most 16384 messages"),
    (CHAT, b"[" + b"1," * 2**20 + b"1]", None, None, "The request body must hold at most 1048576 values."),
    (CHAT, chat_body(messages="Hi"), "messages", "invalid_type", "expected an array, but got a string instead."),
    (CHAT, chat_body(messages=[{"content": "Hi"}]), "messages", "invalid_value", "messages[0] must have a role"),
    (CHAT, chat_body(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "messages", "unsupported_value", "no text"),
    (CHAT, chat_body(messages=[{"role": "nobody", "content": ""}]), "messages", "invalid_value", "No role is called nobody."),
    (CHAT, chat_body(temprature=1), "temprature", "unknown_parameter", "Did you mean 'temperature'?"),
    (CHAT, chat_body(**{"x" * 1000: 1}), "x" * 128 + "...", "unknown_parameter", "Unknown parameter"),
    (CHAT, chat_body(temperature="0"), "temperature", "invalid_type", "expected a number, but got a string instead."),
    (CHAT, chat_body(temperature=-1), "temperature", "invalid_value", "temperature must be between"),
    (CHAT, chat_body(n=1.5), "n", "invalid_type", "expected an integer, but got a number instead."),
    (CHAT, chat_body(n=0), "n", "invalid_value", "n must be at least 1, got 0."),
    (CHAT, chat_body(n=2**62, temperature=1), "n", "invalid_value", "n must be between 1 and 128, got 4611686018427387904."),
    (CHAT, chat_body(stop=""), "stop", "invalid_value", "stop must hold strings of at least one character each."),
    (CHAT, chat_body(stop=["a"] * 1025), "stop", "invalid_value", "stop must hold at most 32 strings of 1 to 1024 characters"),
    (CHAT, chat_body(stop="a" * 65537), "stop", "invalid_value", "stop must hold at most 32 strings of 1 to 1024 characters"),
    (CHAT, chat_body(n=2), "n", "invalid_value", "n must be 1 when temperature is 0"),
    (CHAT, chat_body(max_tokens=0), "max_tokens", "invalid_value", "max_tokens must be between 1"),
    (CHAT, chat_body(max_completion_tokens=-1), "max_completion_tokens", "invalid_value", "max_completion_tokens must be"),
    (CHAT, chat_body(max_completion_tokens=0), "max_completion_tokens", "invalid_value", "max_completion_tokens must be"),
    (CHAT, chat_body(metadata={"a": 1}), "metadata", "invalid_type", "'metadata[...]': expected a string"),
    (CHAT, chat_body(stop=[1]), "stop", "invalid_type", "expected a string"),
    (CHAT, chat_body(stop=["a"] * 100), "stop", "invalid_value", "stop must hold at most 32 strings"),
    (CHAT, chat_body(logit_bias={"x": 1}), "logit_bias", "invalid_type", "expected an integer"),
    (CHAT, chat_body(logit_bias={"999": 1}), "logit_bias", "invalid_value", "between 0 and 259"),
    (CHAT, chat_body(seed=2**70), "seed", "invalid_value", "seed must be between"),
    (CHAT, chat_body(logprobs=True, top_logprobs=21), "top_logprobs", "invalid_value", "top_logprobs must be at most 20"),
    (CHAT, chat_body(top_logprobs=2), "top_logprobs", "invalid_value", "unless logprobs is true"),
    (CHAT, chat_body(stream_options={}), "stream_options", "invalid_value", "unless stream is true"),
    (CHAT, chat_body(stream=True, stream_options={"x": 1}), "stream_options", "unknown_parameter", "Unknown parameter"),
    (
        CHAT,
        chat_body(stream=True, stream_options={"include_obfuscation": True}),
        "stream_options",
        "unsupported_parameter",
        "no padding is sent",
    ),
    (CHAT, chat_body(tools=TOOL), "tools", "unsupported_value", "have its model.json name one as tool_call_parser"),
    (CHAT, chat_body(tools=[{"type": "web_search"}]), "tools", "unsupported_value", "tools[0].type must be 'function'"),
    (CHAT, chat_body(tools=[{"type": "function", "function": {}}]), "tools", "invalid_value", "missing required field `name`"),
    (
        CHAT,
        chat_body(tools=[{"type": "function", "function": {"name": "f", "parameters": NESTED}}]),
        "tools",
        "invalid_value",
        "200",
    ),
    (CHAT, chat_body(tools=TOOL * 2), "tools", "invalid_value", "names that differ"),
    (CHAT, chat_body(tool_choice="required"), "tool_choice", "invalid_value", "'auto' or 'none' without tools"),
    (CHAT, chat_body(tool_choice="sometimes"), "tool_choice", "invalid_value", "got 'sometimes'"),
    (CHAT, chat_body(tools=TOOL, tool_choice={"type": "function", "name": "g"}), "tool_choice", "invalid_value", "name one of"),
    (CHAT, chat_body(tools=TOOL, tool_choice={"type": "custom"}), "tool_choice", "unsupported_value", "other kinds"),
    (CHAT, chat_body(tools=TOOL, tool_choice={"type": "allowed_tools"}), "tool_choice", "invalid_value", "must have a mode"),
    (CHAT, chat_body(tools=TOOL, tool_choice=allowed("sometimes", "f")), "tool_choice", "invalid_value", "must have a mode"),
    (CHAT, chat_body(tools=TOOL, tool_choice=allowed("auto")), "tool_choice", "invalid_value", "1 to 1024 tools"),
    (CHAT, chat_body(tools=TOOL, tool_choice=allowed("auto", "g")), "tool_choice", "invalid_value", "name one of"),
    (CHAT, chat_body(tools=TOOL, tool_choice=allowed("auto", [])), "tool_choice", "invalid_value", "name one of"),
    (CHAT, chat_body(tools=TOOL, tool_choice=allowed("auto", *"f" * 1025)), "tool_choice", "invalid_value", "1 to 1024 tools"),
    (CHAT, chat_body(tool_choice=allowed("auto", "g")), "tool_choice", "invalid_value", "without tools"),
    (CHAT, demanding({"type": "object", "properties": {"a": {"type": "nonsense"}}}), "tools", "invalid_value", "can be followed"),
    (CHAT, demanding({"type": "array"}), "tools", "invalid_value", "whose type is 'object'"),
    (CHAT, demanding({"description": "x" * 70_000}), "tools", "invalid_value", "these tools follow must have at most 65536 bytes"),
    (CHAT, chat_body(tools=LARGE), "tools", "invalid_value", "tools must have at most 262144 bytes"),
    (CHAT, chat_body(tools=LARGE, tool_choice="required"), "tools", "invalid_value", "tools must have at most 262144 bytes"),
    (CHAT, chat_body(response_format={"type": "xml"}), "response_format", "invalid_value", "'xml' is none that"),
    (CHAT, chat_body(response_format=NONSENSE, ignore_eos=False), "response_format", "invalid_value", "can be followed"),
    (CHAT, chat_body(messages=[{"role": "assistant", "tool_calls": [1]}]), "messages", "invalid_value", "a list of calls like"),
    (CHAT, chat_body(chat_template="{{ 1 }}"), "chat_template", "unsupported_parameter", "may not bring its own"),
    (CHAT, chat_body(chat_template_kwargs={"tools": []}), "chat_template_kwargs", "invalid_value", "must not hold 'tools'"),
    (CHAT, chat_body(store=True), "store", "unsupported_parameter", "nothing is kept"),
    (CHAT, chat_body(audio={"voice": "x" * 1000}), "audio", "unsupported_parameter", "'audio' is not supported"),
    (CHAT, chat_body(echo=True), "echo", "unsupported_parameter", "'echo' is not supported"),
    (CHAT, with_raw(chat_body(), "audio", b"1e400"), "audio", "unsupported_parameter", "'audio' is not supported"),
    (CHAT, with_raw(chat_body(), "tools", b"[-1e999]"), "tools", "invalid_value", "out of range"),
    (CHAT, with_raw(chat_body(), "audio", b'"\xff"'), "audio", "unsupported_parameter", "'audio' is not supported"),
    (CHAT, chat_body(store=0), "store", "unsupported_parameter", "nothing is kept"),
    (CHAT, chat_body(cache_salt=""), "cache_salt", "invalid_value", "between 1 and 256 characters"),
    (CHAT, chat_body(stop_token_ids=[1] * 2000), "stop_token_ids", "invalid_value", "at most 1024"),
    (CHAT, chat_body(stop_token_ids=[999]), "stop_token_ids", "invalid_value", "between 0 and 259"),
    (CHAT, chat_body(continue_final_message=True, add_generation_prompt=True), "add_generation_prompt", "invalid_value", "must"),
    (CHAT, chat_body(messages=[{"role": "user", "content": "x" * 3000}]), "messages", "context_length_exceeded", "2048"),
    (COMPLETIONS, completion_body(prompt="x" * 10_000), "prompt", "context_length_exceeded", "2048"),
    (COMPLETIONS, completion_body(prompt=""), "prompt", "invalid_value", "at least one token"),
    (COMPLETIONS, completion_body(prompt=[]), "prompt", "invalid_type", "an array of strings"),
    (COMPLETIONS, completion_body(prompt=["a", [1]]), "prompt", "invalid_type", "an array of strings"),
    (COMPLETIONS, completion_body(prompt=[1.5]), "prompt", "invalid_type", "expected an integer or a string or an array"),
    (COMPLETIONS, completion_body(prompt=[[1, 999]]), "prompt", "invalid_value", "between 0 and 259"),
    (COMPLETIONS, completion_body(prompt=["a"] * 129), "prompt", "invalid_value", "between 1 and 128 prompts"),
    (COMPLETIONS, completion_body(suffix="!"), "suffix", "unsupported_parameter", "suffix is not supported"),
    (COMPLETIONS, completion_body(best_of=2), "best_of", "unsupported_parameter", "'best_of' is not supported"),
    (COMPLETIONS, completion_body(best_of=True), "best_of", "unsupported_parameter", "'best_of' is not supported"),
    (COMPLETIONS, with_raw(completion_body(), "suffix", b"1e400"), "suffix", "unsupported_parameter", "suffix is not supported"),
    (COMPLETIONS, completion_body(max_tokens=0), "max_tokens", "integer_below_min_value", "unless echo is true"),
    (COMPLETIONS, completion_body(logprobs=-1), "logprobs", "invalid_value", "logprobs must be between 0"),
    (COMPLETIONS, completion_body(messages=[]), "messages", "unknown_parameter", "none in completions; leave it out, or use chat"),
    (COMPLETIONS, completion_body(max_completion_tokens=1), "max_completion_tokens", "unknown_parameter", "called 'max_tokens'."),
    (CHAT, chat_body(max_output_tokens=1), "max_output_tokens", "unknown_parameter", "is called 'max_completion_tokens'."),
    (CHAT, chat_body(conversation="c"), "conversation", "unknown_parameter", "Unknown parameter: 'conversation'."),
    (
        RESPONSES,
        responses_body(messages=[]),
        "messages",
        "unknown_parameter",
        "the Responses API, this parameter is called 'input'.",
    ),
    (RESPONSES, responses_body(max_tokens=1), "max_tokens", "unknown_parameter", "is called 'max_output_tokens'."),
    (RESPONSES, responses_body(stop="."), "stop", "unknown_parameter", "There is none in the Responses API; leave it out"),
    (RESPONSES, responses_body(previous_response_id="r"), "previous_response_id", "unsupported_parameter", "nothing is kept"),
    (RESPONSES, responses_body(store=True), "store", "unsupported_parameter", "nothing is kept"),
    (CHAT, chat_body(reasoning_effort="low"), "reasoning_effort", "unsupported_value", "reasoning_effort must be left out"),
    (CHAT, chat_body(reasoning_effort="some"), "reasoning_effort", "invalid_value", "'some' is none that 'reasoning_effort' can"),
    (RESPONSES, responses_body(reasoning={"effort": "low"}), "reasoning", "unsupported_value", "reasoning.effort must be left out"),
    (RESPONSES, responses_body(reasoning={"summary": "detailed"}), "reasoning", "invalid_value", "that 'reasoning.summary' can"),
    (RESPONSES, with_raw(responses_body(), "reasoning", b'{"effort": 1e400}'), "reasoning", "invalid_value", "out of range"),
    (RESPONSES, responses_body(background=True), "background", "unsupported_parameter", "not supported"),
    (RESPONSES, responses_body(include=["web_search_call.results"]), "include", "unsupported_value", "nothing but"),
    (RESPONSES, responses_body(input=[]), "input", "empty_array", "at least one message"),
    (RESPONSES, responses_body(input=[{"type": "item_reference"}]), "input", "unsupported_value", "'item_reference' are not"),
    (RESPONSES, responses_body(input=[{"type": "function_call"}]), "input", "invalid_value", "must have a name that is"),
    (RESPONSES, responses_body(input=[{"type": "function_call_output", "call_id": "x"}]), "input", "invalid_value", "before it"),
    (RESPONSES, responses_body(text={"format": {"type": "json_schema"}}), "text", "invalid_value", "a name and a schema"),
    (RESPONSES, responses_body(text={"verbosity": "low"}), "text", "unsupported_value", "must be 'medium'"),
    (RESPONSES, responses_body(tools=[{"type": "web_search"}]), "tools", "unsupported_value", "none is built in"),
    (RESPONSES, responses_body(input=[{"role": "user", "content": 1}]), "input", "invalid_value", "input[0] must have a content"),
    (RESPONSES, responses_body(input="x" * 3000), "input", "context_length_exceeded", "2048"),
    (RESPONSES, responses_body(top_logprobs=99), "top_logprobs", "invalid_value", "top_logprobs must be"),
    (RESPONSES, responses_body(top_logprobs=-1), "top_logprobs", "invalid_value", "top_logprobs must be"),
    (RESPONSES, responses_body(max_output_tokens=0), "max_output_tokens", "invalid_value", "max_output_tokens must be"),
    (TOKENIZE, {"model": "tiny", "messages": [{"content": "Hi"}]}, "messages", "invalid_value", "messages[0] must have a role"),
    (TOKENIZE, {"model": "tiny"}, "prompt", "missing_required_parameter", "either prompt or messages"),
    (TOKENIZE, {"model": "tiny", "prompt": "x" * 10**6}, "prompt", "context_length_exceeded", "2048"),
    (TOKENIZE, with_raw({"model": "tiny", "prompt": ""}, "tools", b"1e400"), "tools", "invalid_value", "out of range"),
    ("/v1/detokenize", {"model": "tiny", "tokens": [-1]}, "tokens", "invalid_value", "between 0 and 259"),
    ("/v1/detokenize", {"model": "tiny", "tokens": [1] * 2049}, "tokens", "array_above_max_length", "at most 2048"),
]


@pytest.mark.parametrize(("path", "body", "param", "code", "text"), MISTAKES)
def test_a_mistake_has_its_field_code_and_text(
    server: Server, path: str, body: object, param: str | None, code: str | None, text: str
) -> None:
    status, got_param, got_code, got_text = refused(server, path, body)
    assert (status, got_param, got_code) == (400, param, code)
    assert text in got_text
    assert len(got_text) < 400
    assert ("Did you mean" in text) == ("Did you mean" in got_text)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stream_that_cannot_begin_is_refused_as_a_whole_answer_is(server: Server, stream: bool) -> None:
    """A long text is tokenised beside everything else, so that its refusal comes when the reply could have begun."""
    body = chat_body(messages=[{"role": "user", "content": "x" * 10_000}], stream=stream)
    assert refused(server, CHAT, body)[:3] == (400, "messages", "context_length_exceeded")


def test_fields_that_ask_for_nothing(server: Server) -> None:
    assert post(server, RESPONSES, responses_body(reasoning={"effort": None, "summary": None}, text={"format": None})).status == 200
    assert post(server, CHAT, chat_body(length_penalty=1.0, store=False, reasoning_effort="none")).status == 200


def test_a_model_that_does_not_exist(server: Server) -> None:
    for path, body in [(CHAT, chat_body(model="nope")), (COMPLETIONS, completion_body(model="nope"))]:
        assert refused(server, path, body) == (404, "model", "model_not_found", "The model 'nope' does not exist.")
    with pytest.raises(NotFoundError):
        connected(server).models.retrieve("org/nope")
    assert error_of(call(server, "GET", "/v1/models/broken"))["code"] == "model_not_found"


def test_models_health_and_version(server: Server) -> None:
    client = connected(server)
    (tiny,) = [model for model in client.models.list() if model.id == "tiny"]
    assert (tiny.owned_by, tiny.object, tiny.to_dict()["max_model_len"]) == ("octavo", "model", 2048)
    assert client.models.retrieve("tiny") == tiny
    assert [model.id for model in connected(server, "/openai/v1").models.list()] == [model.id for model in client.models.list()]
    assert server.get("/health") == (200, "")
    assert re.fullmatch(r'\{"version":"\d.*"\}', server.get("/version")[1])


def test_paths_and_methods_that_do_not_exist(server: Server) -> None:
    reply = call(server, "GET", "/v1/nope")
    assert (reply.status, error_of(reply)["message"]) == (404, "Invalid URL (GET /v1/nope)")
    assert (error_of(reply)["type"], error_of(reply)["code"]) == ("invalid_request_error", "unknown_url")
    reply = call(server, "GET", CHAT)
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert error_of(reply)["message"] == "Not allowed to GET on /v1/chat/completions."
    assert (error_of(reply)["type"], error_of(reply)["code"]) == ("invalid_request_error", "method_not_supported")


def test_a_body_that_is_packed_as_nobody_can_read(server: Server) -> None:
    reply = post(server, CHAT, chat_body(), {"Content-Encoding": "br"})
    assert reply.status == 400
    assert (error_of(reply)["type"], error_of(reply)["code"]) == ("invalid_request_error", "unsupported_value")


def test_a_request_id_comes_back(server: Server) -> None:
    reply = post(server, CHAT, chat_body(), {"X-Request-Id": "mine"})
    assert (reply.headers["x-request-id"], reply.json["id"]) == ("mine", "chatcmpl-mine")
    reply = post(server, CHAT, chat_body(request_id="body's"), {"X-Request-Id": "mine"})
    assert (reply.headers["x-request-id"], reply.json["id"]) == ("body's", "chatcmpl-body's")
    for unusable in ("x" * 300, "\xe4", ""):
        made = post(server, CHAT, {}, {"X-Request-Id": unusable}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", made)
    foreign = post(server, CHAT, chat_body(), {"X-Request-Id": "mine", "Origin": "https://evil.example"})
    assert (foreign.status, foreign.headers["x-request-id"]) == (403, "mine")
    assert "x-request-id" not in call(server, "GET", "/v2/health/live").headers


def test_a_full_queue_is_told_to_try_again(server: Server, client: triton.InferenceServerClient) -> None:
    """``narrow`` serves one request and lets one wait."""
    client.load_model("narrow")
    body = chat_body(model="narrow", max_tokens=1900, stream=True)
    readers = [event_lines(server, CHAT, body) for _ in range(2)]
    next(readers[0])
    waiting = threading.Thread(target=next, args=(readers[1], None))
    waiting.start()
    server.wait_until(lambda: server.in_flight() == 2, "one to run and one to wait")
    for stream in (False, True):
        reply = post(server, CHAT, chat_body(model="narrow", stream=stream))
        error = error_of(reply)
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert error["message"] == "The model's queue is full; try again later."
    with pytest.raises(RateLimitError):
        connected(server).completions.create(model="narrow", prompt="Hi")
    readers[0].close()
    waiting.join()
    readers[1].close()
    server.wait_until_free()
    client.unload_model("narrow")


@pytest.mark.parametrize(("path", "body"), [(CHAT, chat_body), (COMPLETIONS, completion_body), (RESPONSES, responses_body)])
def test_a_reader_that_leaves_frees_its_pages(server: Server, path: str, body: Any) -> None:
    server.wait_until_free()
    cancelled = server.metric("nv_inference_request_failure", reason="CANCELED")
    limit = "max_output_tokens" if path == RESPONSES else "max_tokens"
    lines = event_lines(server, path, body(**{limit: 1900}, stream=True))
    next(lines)
    lines.close()
    server.wait_until_free()
    assert server.metric("nv_inference_request_failure", reason="CANCELED") == cancelled + 1


def test_a_caller_that_does_not_wait_for_the_answer_frees_its_pages(server: Server) -> None:
    server.wait_until_free()
    connection = http.client.HTTPConnection(server.http)
    connection.request("POST", CHAT, json.dumps(chat_body(max_tokens=1900)).encode())
    server.wait_until(lambda: server.in_flight() == 1, "the request to run")
    connection.close()
    server.wait_until_free()


def test_what_is_nested_deeply_is_no_bug_of_ours(server: Server) -> None:
    for depth in (150, 400, 900, 980, 1100):
        arguments = "[" * depth + "]" * depth
        for given in (json.dumps(arguments), arguments):
            tool_call = b'{"type": "function", "function": {"name": "f", "arguments": ' + given.encode() + b"}}"
            message = b'[{"role": "assistant", "content": "", "tool_calls": [' + tool_call + b"]}]"
            status = post(server, CHAT, with_raw(chat_body(max_tokens=1), "messages", message)).status
            assert status in (200, 400), depth
