"""Calls and forms that a grammar enforces, by a model that left alone says random bytes."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from http_calls import PATIENCE, post
from openai import AsyncOpenAI, OpenAI
from openai_calls import CHAT, HI, connected
from server import Server
from tiny import byte_tokenizer

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
NOW: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS: Any = [
    {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS, "strict": True}},
    {"type": "function", "function": {"name": "now", "parameters": NOW}},
]
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}
FLAT: Any = [{"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": True}]


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return connected(server)


def ask(client: OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(**{"model": "tiny", "messages": HI, "tools": TOOLS, "seed": 1, "max_tokens": 300, **more})


def check(name: str, arguments: str) -> None:
    assert json.loads(arguments) in ([{}] if name == "now" else [{"city": "Paris"}, {"city": "Rome"}])


@pytest.mark.parametrize(("choice", "reason"), [("required", "tool_calls"), (NAMED, "stop")])
def test_calls_that_must_be_made_are_made(client: OpenAI, choice: Any, reason: str) -> None:
    whole = ask(client, tool_choice=choice).choices[0]
    assert (whole.finish_reason, whole.message.content) == (reason, None)
    (call,) = whole.message.tool_calls
    check(call.function.name, call.function.arguments)
    assert call.function.name == "get_weather" or choice == "required"
    with client.chat.completions.stream(
        model="tiny", messages=HI, tools=TOOLS, tool_choice=choice, seed=1, max_tokens=300
    ) as stream:
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == reason
    assert final.message.tool_calls[0].function.arguments == call.function.arguments


def test_the_client_for_asyncio_and_several_samples(server: Server) -> None:
    async def calls() -> list[Any]:
        async with AsyncOpenAI(base_url=f"http://{server.http}/v1", api_key="none", timeout=PATIENCE) as client:
            answer = await client.chat.completions.create(
                model="tiny", messages=HI, tools=TOOLS, tool_choice="required", seed=2, max_tokens=300, n=3
            )
            return [choice.message.tool_calls[0].function for choice in answer.choices]

    found = asyncio.run(calls())
    assert len(found) == 3
    for call in found:
        check(call.name, call.arguments)


def test_a_response_with_a_call_that_must_be_made(client: OpenAI) -> None:
    more: Any = {"tools": FLAT, "tool_choice": {"type": "function", "name": "get_weather"}, "max_output_tokens": 300}
    (call,) = client.responses.create(model="tiny", input="Hi", **more).output
    assert (call.type, call.name, call.status) == ("function_call", "get_weather", "completed")
    check(call.name, call.arguments)
    *_, last = client.responses.create(model="tiny", input="Hi", stream=True, **more)
    (call,) = last.response.output
    check(call.name, call.arguments)


@pytest.mark.parametrize("name", ["get_weather", "now"])
def test_only_tools_that_are_allowed_are_called(client: OpenAI, name: str) -> None:
    flat: Any = [{"type": "function", "strict": None, **tool["function"]} for tool in TOOLS]
    for seed in range(2):
        choice: Any = {"mode": "required", "tools": [{"type": "function", "function": {"name": name}}]}
        whole = ask(client, tool_choice={"type": "allowed_tools", "allowed_tools": choice}, seed=seed).choices[0]
        assert whole.finish_reason == "tool_calls"
        assert {call.function.name for call in whole.message.tool_calls} == {name}
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": name}]}
    response = client.responses.create(model="tiny", input="Hi", tools=flat, tool_choice=choice, max_output_tokens=300)
    assert {call.name for call in response.output} == {name}
    assert response.tool_choice.to_dict() == choice


def test_the_form_of_a_response(client: OpenAI) -> None:
    form: Any = {"format": {"type": "json_schema", "name": "trip", "schema": PARAMETERS, "strict": True}}
    response = client.responses.create(model="tiny", input="Hi", text=form, max_output_tokens=300)
    check("get_weather", response.output_text)
    assert (response.text.format.type, response.text.format.name) == ("json_schema", "trip")
    plain = client.responses.create(model="tiny", input="Hi", text={"format": {"type": "json_object"}}, max_output_tokens=30)
    assert plain.output_text.lstrip().startswith("{")


def test_a_form_counts_unless_a_call_is_required(server: Server) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "trip", "schema": {"const": {"a": 1}}}}
    body = {"model": "tiny", "messages": HI, "tools": TOOLS, "max_tokens": 300, "response_format": form, "tool_choice": "required"}
    assert post(server, CHAT, body | {"seed": 1}).json["choices"][0]["message"]["tool_calls"]
    none = post(server, CHAT, body | {"tool_choice": "none"}).json["choices"][0]["message"]
    assert json.loads(none["content"]) == {"a": 1}


@pytest.fixture(scope="module")
def thinking(server: Server) -> Iterator[None]:
    with server.client() as repository:
        repository.load_model("thinking")
        yield
        repository.unload_model("thinking")


def never(text: str) -> dict[str, float]:
    """Has a model over bytes say none of these characters, if it may say anything else."""
    tokenizer = byte_tokenizer()
    return {str(tokenizer.encode(character).ids[0]): -1e9 for character in text}


@pytest.mark.usefixtures("thinking")
def test_tools_beside_a_form_leave_the_choice_between_them(server: Server) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "trip", "schema": {"const": {"a": 1}}}}
    body = {"model": "thinking", "messages": HI, "tools": TOOLS, "max_tokens": 300, "response_format": form}
    (answer,) = post(server, CHAT, body | {"logit_bias": never("<")}).json["choices"]
    assert (json.loads(answer["message"]["content"]), answer["finish_reason"]) == ({"a": 1}, "stop")
    (call,) = post(server, CHAT, body | {"logit_bias": never("{h\n\t ,"), "parallel_tool_calls": False}).json["choices"]
    assert (call["message"]["content"], call["finish_reason"]) == (None, "tool_calls")
    check(**call["message"]["tool_calls"][0]["function"])


@pytest.mark.usefixtures("thinking")
def test_a_grammar_begins_after_the_reasoning(server: Server) -> None:
    body = {"model": "thinking", "messages": HI, "max_tokens": 40, "structured_outputs": {"choice": ["yes", "no"]}}
    (answer,) = post(server, CHAT, body | {"logit_bias": never("<")}).json["choices"]
    assert answer["message"]["content"] in ("yes", "no")
    assert "reasoning" not in answer["message"]
    # The reasoning does not end by itself.
    reply = post(server, CHAT, body | {"logit_bias": never("yn/")}).json
    (endless,) = reply["choices"]
    assert (endless["message"]["content"], endless["finish_reason"]) == (None, "length")
    assert endless["message"]["reasoning"]
    assert reply["usage"]["completion_tokens_details"] == {"reasoning_tokens": 40}
