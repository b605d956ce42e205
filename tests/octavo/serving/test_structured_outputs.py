"""Answers that follow grammars, over every door, by a model that left alone says random bytes."""

import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.grpc as grpcclient
from http_calls import events, post
from openai_calls import CHAT, COMPLETIONS, HI
from server import Server

GENERATE = "/v2/models/tiny/generate"
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["cat", "dog"]}, "age": {"type": "integer", "minimum": 0, "maximum": 30}},
    "required": ["kind", "age"],
    "additionalProperties": False,
}
WAYS: list[tuple[dict[str, Any], str]] = [
    ({"regex": "[0-9]{3}-[a-f]{2}"}, "[0-9]{3}-[a-f]{2}"),
    ({"choice": ["yes", "no", "é中"]}, "yes|no|é中"),
    ({"grammar": 'root ::= "<" [a-c] "," [a-c] ">"'}, "<[a-c],[a-c]>"),
    ({"json": SCHEMA}, r'\s*{\s*"kind"\s*:\s*"(cat|dog)"\s*,\s*"age"\s*:\s*[0-9]+\s*}'),
    ({"json": json.dumps(SCHEMA)}, r'\s*{\s*"kind"\s*:\s*"(cat|dog)"\s*,\s*"age"\s*:\s*[0-9]+\s*}'),
]


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": HI, "max_tokens": 300, "seed": 5} | more


def generated(**more: Any) -> dict[str, Any]:
    return {"text_input": "hello", "exclude_input_in_output": True, "max_tokens": 300, "seed": 5} | more


@pytest.mark.parametrize(("wish", "pattern"), WAYS)
def test_an_answer_is_what_was_asked_for_over_every_door(server: Server, wish: dict[str, Any], pattern: str) -> None:
    answers = [
        post(server, GENERATE, generated(structured_outputs=wish)).json["text_output"],
        post(server, GENERATE, generated(sampling_parameters={"structured_outputs": json.dumps(wish)})).json["text_output"],
        post(server, COMPLETIONS, {"model": "tiny", "prompt": "x", "max_tokens": 300, "structured_outputs": wish}).json["choices"][
            0
        ]["text"],
    ]
    assert [answer for answer in answers if not re.fullmatch(pattern, answer)] == []


def test_an_answer_over_grpc(server: Server) -> None:
    with grpcclient.InferenceServerClient(server.grpc) as client:
        text = grpcclient.InferInput("text_input", [1], "BYTES")
        text.set_data_from_numpy(np.array([b"hello"], np.object_))
        options = {"structured_outputs": '{"choice": ["red", "green"]}'}
        result = client.infer("tiny", [text], parameters=options)
    assert result.as_numpy("text_output")[0] in (b"hellored", b"hellogreen")


def test_samples_and_streams_of_a_schema_are_json(server: Server) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "pet", "strict": True, "schema": SCHEMA}}
    reply = post(server, CHAT, chat(response_format=form, n=3)).json
    again = post(server, CHAT, chat(response_format=form, n=3)).json
    texts = [choice["message"]["content"] for choice in reply["choices"]]
    assert texts == [choice["message"]["content"] for choice in again["choices"]]
    assert {choice["finish_reason"] for choice in reply["choices"]} == {"stop"}
    assert all(json.loads(text)["kind"] in {"cat", "dog"} for text in texts)
    status, *chunks = events(server, GENERATE + "_stream", generated(stream=True, structured_outputs={"json": SCHEMA}))
    assert status == 200
    assert len(chunks) > 1
    assert json.loads("".join(chunk["text_output"] for chunk in chunks))["age"] <= 30


def test_guided_fields_of_older_clients(server: Server) -> None:
    body = {"model": "tiny", "prompt": "x", "max_tokens": 50}
    for more, pattern in (({"guided_regex": "[ab]{4}"}, "[ab]{4}"), ({"guided_choice": ["u", "v"]}, "u|v")):
        assert re.fullmatch(pattern, post(server, COMPLETIONS, body | more).json["choices"][0]["text"])
    reply = post(server, COMPLETIONS, body | {"guided_regex": "a", "structured_outputs": {"regex": "b"}})
    assert reply.status == 400


HOSTILE: list[dict[str, Any]] = [
    {"regex": "(a"},
    {"regex": "(" * 150 + "a" + ")" * 150 + "(?=b)"},
    {"regex": "a" * 70_000},
    {"json": {"type": "nonsense"}},
    {"json": '{"items":' * 300 + "{}" + "}" * 300},
    {"json": {"description": "x" * (1 << 20)}},
    {"json": {"$ref": "#/nowhere"}},
    {"json": {"$ref": "#"}},
    {"grammar": "root ::= root"},
    {"grammar": "root ::= missing"},
    {"grammar": "root ::= " + "(" * 5000 + '"a"' + ")" * 5000},
    {"choice": []},
    {"regex": "a", "json": {}},
    {},
]


def test_hostile_grammars_are_refused_and_stall_nobody(server: Server) -> None:
    times: list[float] = []

    def read() -> None:
        body = generated(stream=True, max_tokens=1500, ignore_eos=True, temperature=0)
        times.extend(time.monotonic() for _ in events(server, GENERATE + "_stream", body))

    reader = threading.Thread(target=read)
    reader.start()
    for wish in HOSTILE:
        began = time.monotonic()
        reply = post(server, GENERATE, generated(structured_outputs=wish))
        assert reply.status == 400, (str(wish)[:80], reply.body)
        assert len(reply.json["error"]) < 600
        assert time.monotonic() - began < 10
    reader.join()
    assert max(np.diff(times)) < 2


def test_what_does_not_go_together_is_refused(server: Server) -> None:
    for more in ({"min_tokens": 3}, {"ignore_eos": True}):
        reply = post(server, GENERATE, generated(structured_outputs={"regex": "a"}, **more))
        assert reply.status == 400
        assert "structured_outputs" in reply.json["error"]


def test_a_grammars_process_may_be_killed(server: Server) -> None:
    long = generated(structured_outputs={"regex": "[0-9]{1500}"}, max_tokens=1400)
    post(server, GENERATE, generated(structured_outputs={"regex": "a"}))
    reply = posting(server, long)
    time.sleep(0.5)
    helpers = grammar_processes(server)
    assert len(helpers) >= 3
    for helper in helpers:
        helper.kill()
    assert reply().status == 400
    assert post(server, GENERATE, generated(structured_outputs={"regex": "abc"})).json["text_output"] == "abc"
    assert post(server, GENERATE, generated(max_tokens=2)).status == 200


def test_whoever_waits_for_a_helper_that_is_killed_is_served_by_the_next(server: Server) -> None:
    post(server, GENERATE, generated(structured_outputs={"regex": "a"}))
    processes = grammar_processes(server)
    numbers = {process.pid for process in processes}
    helper = next(process for process in processes if process.ppid() not in numbers)
    helper.suspend()
    waiting = posting(server, generated(structured_outputs={"regex": "abd"}))
    time.sleep(0.3)  # enough for the grammar to reach the helper, which does not look; nothing fails if it comes later
    helper.kill()
    assert waiting().json["text_output"] == "abd"


def test_a_grammars_process_that_is_stopped_holds_up_nobody_else(server: Server) -> None:
    before = grammar_processes(server)
    body = generated(structured_outputs={"regex": "[1-9]{401}"}, stream=True, max_tokens=400)
    stream = events(server, GENERATE + "_stream", body)
    assert next(stream) == 200
    said = [next(stream)["text_output"]]
    numbers = {process.pid for process in before}
    forked = [process for process in grammar_processes(server) if process.pid not in numbers]
    (process,) = [process for process in forked if process.ppid() in numbers | {one.pid for one in forked}]
    process.suspend()
    try:
        assert post(server, GENERATE, generated(max_tokens=20, ignore_eos=True)).status == 200
        assert post(server, GENERATE, generated(structured_outputs={"regex": "abe"})).json["text_output"] == "abe"
    finally:
        process.resume()
    said += [one["text_output"] for one in stream]
    assert re.fullmatch("[1-9]{400}", "".join(said))


def grammar_processes(server: Server) -> list[psutil.Process]:
    return [child for child in psutil.Process(server.process.pid).children(recursive=True) if child.name() == "octavo-grammar"]


def posting(server: Server, body: dict[str, Any]) -> Callable[[], Any]:
    """Post ``body`` in a thread; what is returned waits for the reply."""
    replies: list[Any] = []
    caller = threading.Thread(target=lambda: replies.append(post(server, GENERATE, body)))
    caller.start()

    def reply() -> Any:
        caller.join()
        return replies[0]

    return reply


def test_the_former_name_of_vllms_backend(server: Server) -> None:
    for wish in ({"regex": "[ab]{4}"}, json.dumps({"regex": "[ab]{4}"})):
        body = generated(sampling_parameters=json.dumps({"guided_decoding": wish}))
        assert re.fullmatch("[ab]{4}", post(server, GENERATE, body).json["text_output"])
    twice = generated(sampling_parameters=json.dumps({"guided_decoding": {"regex": "a"}, "structured_outputs": {"regex": "a"}}))
    assert "must be given once" in post(server, GENERATE, twice).json["error"]


def test_guides_of_tensorrt_llms_clients(server: Server) -> None:
    def guided_by(kind: str, guide: str, *, in_body: bool) -> Any:
        told = {"guided_decoding_guide_type": kind, "guided_decoding_guide": guide}
        with grpcclient.InferenceServerClient(server.grpc) as client:
            given = {"text_input": "hello"} | (told if in_body else {})
            inputs = [
                grpcclient.InferInput(name, [1, 1] if name != "text_input" else [1], "BYTES").set_data_from_numpy(
                    np.array([[text]] if name != "text_input" else [text], np.object_)
                )
                for name, text in given.items()
            ]
            options = {"max_tokens": 200} | ({} if in_body else told)
            return client.infer("tiny", inputs, parameters=options).as_numpy("text_output")[0].decode().removeprefix("hello")

    for in_body in (True, False):
        assert re.fullmatch("[ab]{3}", guided_by("regex", "[ab]{3}", in_body=in_body))
        assert json.loads(guided_by("json_schema", json.dumps(SCHEMA), in_body=in_body))["age"] <= 30
    assert guided_by("ebnf_grammar", 'root ::= "x" | "y"', in_body=True) in {"x", "y"}
    with pytest.raises(Exception, match="must be one of json_schema, regex and ebnf_grammar"):
        guided_by("structural_tag", "x", in_body=True)
