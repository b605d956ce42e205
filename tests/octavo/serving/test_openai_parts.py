"""Answers of models that reason and call tools, as clients get them: whole, streamed, in chat completions and responses.

The engine says what a test has it say, so the answers are those of real models.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from http_calls import PATIENCE, post
from openai import AsyncOpenAI, OpenAI
from openai_calls import CHAT, RESPONSES, connected, refused
from server import Server, running
from tiny import write_model

from octavo.serving.children import Programs

# The answer is the last message's content, as it stands.
ECHO = "{{ messages[-1].content }}"
# How Qwen's template spells what was called, thought and answered.
SPELLING = """
{%- if tools %}{{ '<tools>' + (tools | tojson) + '</tools>' }}{% endif %}
{%- for message in messages %}
    {{- '<' + message.role + '>' }}
    {%- if message.reasoning_content %}{{ '(' + message.reasoning_content + ')' }}{% endif %}
    {{- message.content or '' }}
    {%- for call in message.tool_calls or [] %}
        {{- call.function.name + ':' + call.function.arguments.city + ';' }}
    {%- endfor %}
{%- endfor %}"""
# Like those of many small models, which know of no calls.
CONCATENATING = "{% for message in messages %}{{ '<' + message.role + '>' + message.content + ';' }}{% endfor %}"
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TOOLS: Any = [{"type": "function", "function": WEATHER}]
PARIS = '{"city": "Paris"}'
ROME = '{"city": "Rome"}'
CALLS = {
    "hermes": f'<tool_call>\n{{"name": "get_weather", "arguments": {PARIS}}}\n</tool_call>\n'
    f'<tool_call>\n{{"name": "get_weather", "arguments": {ROME}}}\n</tool_call>',
    "llama": f'{{"name": "get_weather", "parameters": {PARIS}}}; {{"name": "get_weather", "parameters": {ROME}}}',
    "mistral": f'[TOOL_CALLS] [{{"name": "get_weather", "arguments": {PARIS}}}, {{"name": "get_weather", "arguments": {ROME}}}]',
    "pythonic": "[get_weather(city='Paris'), get_weather(city='Rome')]",
}
THOUGHT = "<think>\nParis and Rome.\n</think>\n\n"


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory, snapshot: Path) -> Iterator[Server]:
    """A model for each format, told by its settings or, of ``told``, by its template."""
    folder = tmp_path_factory.mktemp("scripted")

    def write(name: str, template: str, **settings: object) -> None:
        weights = folder / "weights" / name
        weights.mkdir(parents=True)
        for file in ("config.json", "tokenizer.json", "model.safetensors"):
            (weights / file).symlink_to(snapshot / file)
        (weights / "chat_template.jinja").write_text(template)
        write_model(folder / "repository", name, weights, **settings)

    write("hermes", ECHO, tool_call_parser="hermes", reasoning_parser="qwen3")
    write("llama", ECHO, tool_call_parser="llama3_json")
    write("mistral", ECHO, tool_call_parser="mistral")
    write("pythonic", ECHO, tool_call_parser="pythonic")
    write("told", ECHO + "{# <tool_call> <think> #}{% if opened %}<think>{% endif %}")
    write("plain", ECHO + "{# <tool_call> <think> #}", tool_call_parser="", reasoning_parser="")
    write("spelling", SPELLING)
    write("effort", "{{ reasoning_effort }} {{ enable_thinking }}{# <think> #}")
    write("concatenating", CONCATENATING)
    write("asking", CONCATENATING.replace("message.content +", "('nothing' if message.content is none else message.content) +"))
    with running(folder / "repository", log=folder / "server.log", programs=Programs(engine="scripted_engine")) as server:
        yield server
    assert "Internal error" not in (folder / "server.log").read_text()


@pytest.fixture(scope="module")
def client(scripted: Server) -> OpenAI:
    return connected(scripted)


def ask(client: OpenAI, model: str, says: str, **more: Any) -> Any:
    return client.chat.completions.create(
        **{"model": model, "messages": [{"role": "user", "content": says}], "temperature": 0, **more}
    )


def called(calls: Any) -> list[tuple[str, str]]:
    return [(call.function.name, call.function.arguments) for call in calls or ()]


@pytest.mark.parametrize("model", CALLS)
def test_calls_of_every_format_whole_and_streamed(client: OpenAI, model: str) -> None:
    (choice,) = ask(client, model, CALLS[model], tools=TOOLS).choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert called(choice.message.tool_calls) == [("get_weather", PARIS), ("get_weather", ROME)]
    ids = [call.id for call in choice.message.tool_calls]
    assert len(set(ids)) == 2
    assert all(call.type == "function" for call in choice.message.tool_calls)
    if model == "mistral":
        assert [len(one) for one in ids] == [9, 9]
    with client.chat.completions.stream(
        model=model, messages=[{"role": "user", "content": CALLS[model]}], temperature=0, tools=TOOLS
    ) as stream:
        final = stream.get_final_completion().choices[0]
    assert (final.finish_reason, called(final.message.tool_calls)) == ("tool_calls", called(choice.message.tool_calls))


def test_the_chunks_of_a_stream_are_openais(client: OpenAI) -> None:
    deltas = [chunk.choices[0] for chunk in ask(client, "hermes", "Let me see.\n" + CALLS["hermes"], tools=TOOLS, stream=True)]
    assert (deltas[0].delta.role, deltas[0].delta.content) == ("assistant", "")
    assert "".join(choice.delta.content or "" for choice in deltas) == "Let me see."
    parts = [choice.delta.tool_calls[0] for choice in deltas if choice.delta.tool_calls]
    heads = [part for part in parts if part.id]
    assert [(head.index, head.type, head.function.name, head.function.arguments) for head in heads] == [
        (0, "function", "get_weather", ""),
        (1, "function", "get_weather", ""),
    ]
    rest = [part for part in parts if not part.id]
    assert all(part.type is None and part.function.name is None for part in rest)
    assert ["".join(part.function.arguments for part in rest if part.index == index) for index in (0, 1)] == [PARIS, ROME]
    assert len(rest) > 2, "each call's arguments came at once"
    assert [choice.finish_reason for choice in deltas if choice.finish_reason] == ["tool_calls"]
    assert deltas[-1].delta.tool_calls is None


def test_parallel_calls_are_left_out_unless_they_are_welcome(client: OpenAI) -> None:
    (choice,) = ask(client, "hermes", CALLS["hermes"], tools=TOOLS, parallel_tool_calls=False).choices
    assert called(choice.message.tool_calls) == [("get_weather", PARIS)]
    chunks = ask(client, "hermes", CALLS["hermes"], tools=TOOLS, parallel_tool_calls=False, stream=True)
    assert {call.index for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()} == {0}


def test_allowed_tools_may_be_called(client: OpenAI) -> None:
    choice: Any = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": TOOLS}}
    (message,) = [choice.message for choice in ask(client, "hermes", CALLS["hermes"], tools=TOOLS, tool_choice=choice).choices]
    assert called(message.tool_calls) == [("get_weather", PARIS), ("get_weather", ROME)]


def test_without_tools_or_with_none_of_them_an_answer_is_text(client: OpenAI) -> None:
    for more in ({}, {"tools": TOOLS, "tool_choice": "none"}, {"tools": []}):
        (choice,) = ask(client, "hermes", CALLS["hermes"], **more).choices
        assert (choice.finish_reason, choice.message.content, choice.message.tool_calls) == ("stop", CALLS["hermes"], None)
    (choice,) = ask(client, "hermes", "<tool_call>no</tool_call>", tools=TOOLS).choices
    assert (choice.finish_reason, choice.message.content, choice.message.tool_calls) == ("stop", "<tool_call>no</tool_call>", None)


def test_a_call_that_is_cut_off_says_so(client: OpenAI) -> None:
    (choice,) = ask(client, "llama", CALLS["llama"], tools=TOOLS, max_tokens=50).choices
    assert choice.finish_reason == "length"
    assert called(choice.message.tool_calls) == [("get_weather", CALLS["llama"][38:50])]


def test_a_model_without_a_format_refuses_tools_that_it_may_call(scripted: Server) -> None:
    body = {"model": "plain", "messages": [{"role": "user", "content": "x"}], "tools": TOOLS}
    assert refused(scripted, CHAT, body)[:3] == (400, "tools", "unsupported_value")
    flat = [{"type": "function", **WEATHER}]
    assert refused(scripted, RESPONSES, {"model": "plain", "input": "x", "tools": flat})[:3] == (400, "tools", "unsupported_value")


def test_reasoning_is_split_off_before_calls_are_looked_for(client: OpenAI) -> None:
    says = "<think>\nA <tool_call>?\n</think>\n\nYes." + CALLS["hermes"]
    whole = ask(client, "hermes", says, tools=TOOLS)
    message = whole.choices[0].message
    assert (message.reasoning_content, message.reasoning, message.content) == ("A <tool_call>?",) * 2 + ("Yes.",)
    assert called(message.tool_calls) == [("get_weather", PARIS), ("get_weather", ROME)]
    assert whole.usage.completion_tokens_details.reasoning_tokens == says.index("</think>") + len("</think>")
    texts, thoughts = "", ""
    *chunks, last = ask(client, "hermes", says, tools=TOOLS, stream=True, stream_options={"include_usage": True})
    for chunk in chunks:
        delta = chunk.choices[0].delta
        texts += delta.content or ""
        thoughts += getattr(delta, "reasoning_content", None) or ""
        assert getattr(delta, "reasoning", None) == getattr(delta, "reasoning_content", None)
    assert (texts, thoughts) == ("Yes.", "A <tool_call>?")
    assert last.usage.completion_tokens_details == whole.usage.completion_tokens_details
    hidden = ask(client, "hermes", says, extra_body={"include_reasoning": False}).choices[0].message
    assert (hidden.content, hasattr(hidden, "reasoning")) == ("Yes." + CALLS["hermes"], False)


def test_templates_tell_the_formats_and_where_reasoning_begins(client: OpenAI) -> None:
    (choice,) = ask(client, "told", THOUGHT + CALLS["hermes"], tools=TOOLS).choices
    assert choice.message.reasoning == "Paris and Rome."
    assert len(choice.message.tool_calls) == 2
    opened = {"extra_body": {"chat_template_kwargs": {"opened": True}}}
    # The prompt, and thus the answer, ends with an open mark.
    answer = ask(client, "told", "Hm.</think>Yes.", **opened)
    assert (answer.choices[0].message.reasoning, answer.choices[0].message.content) == ("Hm.", "Yes.<think>")
    assert ask(client, "told", "Hm.", **opened).choices[0].message.content is None
    unthinking = ask(client, "told", "Yes.")
    assert not hasattr(unthinking.choices[0].message, "reasoning")
    assert unthinking.usage.completion_tokens_details.reasoning_tokens == 0
    plain = ask(client, "plain", THOUGHT)
    assert (plain.choices[0].message.content, plain.usage.completion_tokens_details) == (THOUGHT, None)


def test_how_much_to_reason_reaches_the_template(client: OpenAI) -> None:
    def told(**more: Any) -> Any:
        return ask(client, "effort", "", **more).choices[0].message.content

    thinking = {"chat_template_kwargs": {"enable_thinking": True}}
    assert told(reasoning_effort="low") == "low True"
    assert told(reasoning_effort="none") == "none False"
    assert told(reasoning_effort="none", extra_body=thinking) == "none True"
    assert told(extra_body=thinking) == " True"
    whole = respond(client, "effort", "", reasoning={"effort": "high", "summary": "auto"})
    assert (whole.output_text, whole.reasoning.effort, whole.reasoning.summary) == ("high True", "high", "auto")


def test_every_sample_is_taken_apart_by_itself(client: OpenAI) -> None:
    whole = ask(client, "hermes", THOUGHT + CALLS["hermes"], tools=TOOLS, n=2, temperature=1)
    assert [len(choice.message.tool_calls) for choice in whole.choices] == [2, 2]
    heads: list[tuple[int, int]] = []
    for chunk in ask(client, "hermes", THOUGHT + CALLS["hermes"], tools=TOOLS, n=2, temperature=1, stream=True):
        (choice,) = chunk.choices
        heads += [(choice.index, call.index) for call in choice.delta.tool_calls or () if call.id]
    assert sorted(heads) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def respond(client: OpenAI, model: str, says: Any, **more: Any) -> Any:
    return client.responses.create(**{"model": model, "input": says, "temperature": 0, **more})


def test_a_response_has_an_item_for_each_part(client: OpenAI) -> None:
    flat: Any = [{"type": "function", "strict": None, **WEATHER}]
    says = THOUGHT + "Let me see.\n" + CALLS["hermes"]
    whole = respond(client, "hermes", says, tools=flat)
    reasoning, message, paris, rome = whole.output
    assert (reasoning.type, reasoning.summary, reasoning.content[0].text) == ("reasoning", [], "Paris and Rome.")
    assert (message.type, message.content[0].text, whole.output_text) == ("message", "Let me see.", "Let me see.")
    assert [(call.type, call.name, call.arguments) for call in (paris, rome)] == [
        ("function_call", "get_weather", PARIS),
        ("function_call", "get_weather", ROME),
    ]
    assert len({item.id for item in whole.output}) == 4
    assert {item.status for item in whole.output} == {"completed"}
    assert whole.usage.output_tokens_details.reasoning_tokens == says.index("</think>") + len("</think>")
    assert (whole.tools[0].name, whole.tool_choice, whole.parallel_tool_calls) == ("get_weather", "auto", True)


def test_a_stream_tells_of_every_item(client: OpenAI) -> None:
    flat: Any = [{"type": "function", "strict": None, **WEATHER}]
    says = THOUGHT + "Yes.\n" + CALLS["hermes"].split("\n<")[0] + "\n</tool_call>"
    with client.responses.stream(model="hermes", input=says, temperature=0, tools=flat) as stream:
        events = list(stream)
    kinds = [event.type for event in events]
    item = ["response.output_item.added", "response.content_part.added"]
    done = ["response.content_part.done", "response.output_item.done"]
    call = ["response.function_call_arguments.delta", "response.function_call_arguments.done"]
    expected = ["response.created", "response.in_progress", *item, "response.reasoning_text.delta", "response.reasoning_text.done"]
    expected += [*done, *item, "response.output_text.delta", "response.output_text.done", *done]
    expected += ["response.output_item.added", *call, "response.output_item.done", "response.completed"]
    assert [kind for kind, before in zip(kinds, ["", *kinds[:-1]], strict=True) if kind != before] == expected
    assert [event.sequence_number for event in events] == list(range(len(events)))
    arguments = [event for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(event.delta for event in arguments) == PARIS
    assert {event.output_index for event in arguments} == {2}
    (added, *_) = [event.item for event in events if event.type == "response.output_item.added" and event.output_index == 2]
    assert (added.name, added.arguments, added.status) == ("get_weather", "", "in_progress")
    final = events[-1].response
    assert [one.type for one in final.output] == ["reasoning", "message", "function_call"]
    assert final.output[2].call_id == added.call_id


def test_the_client_for_asyncio_gets_the_same(scripted: Server) -> None:
    async def arguments() -> str:
        async with AsyncOpenAI(base_url=f"http://{scripted.http}/v1", api_key="none", timeout=PATIENCE) as client:
            messages: Any = [{"role": "user", "content": CALLS["mistral"]}]
            stream = await client.chat.completions.create(
                model="mistral", messages=messages, tools=TOOLS, temperature=0, stream=True
            )
            deltas = [call async for chunk in stream for call in chunk.choices[0].delta.tool_calls or ()]
            return "".join(call.function.arguments for call in deltas if call.index == 1)

    assert asyncio.run(arguments()) == ROME


def spelled(server: Server, **body: Any) -> str:
    reply = post(server, "/v1/tokenize", {"model": "spelling", "return_token_strs": True, **body})
    return "".join(reply.json["token_strs"])


def test_calls_and_their_results_reach_the_template(scripted: Server, client: OpenAI) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": PARIS}}
    messages = [
        {"role": "user", "content": "Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning": "Hm."},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "Rain"}]},
    ]
    shown = "<user>Paris?<assistant>(Hm.)get_weather:Paris;<tool>Rain"
    assert spelled(scripted, messages=messages) == shown
    assert spelled(scripted, messages=messages, tools=TOOLS) == f"<tools>{json.dumps(TOOLS)}</tools>{shown}"
    # The answer is what the model was asked.
    assert ask(client, "spelling", "", messages=messages).choices[0].message.content == shown
    items = [
        {"role": "user", "content": "Paris?"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": PARIS},
        {"type": "function_call_output", "call_id": "call_1", "output": "Rain"},
    ]
    assert respond(client, "spelling", items).output_text == shown
    said = [*items[:2], {"role": "assistant", "content": "Well."}, *items[2:]]
    assert respond(client, "spelling", said).output_text == shown.replace("get", "Well.get")


def test_a_message_without_content_is_empty_to_a_template_that_does_not_ask(scripted: Server) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": PARIS}}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "Rain"}]
    assert spelled(scripted, model="concatenating", messages=messages) == "<assistant>;<tool>Rain;"
    assert spelled(scripted, model="asking", messages=messages) == "<assistant>nothing;<tool>Rain;"


def test_what_was_answered_can_be_sent_back(client: OpenAI) -> None:
    flat: Any = [{"type": "function", "strict": None, **WEATHER}]
    first = respond(client, "hermes", THOUGHT + CALLS["hermes"], tools=flat)
    outputs = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "Rain"}
        for item in first.output
        if item.type == "function_call"
    ]
    again = [{"role": "user", "content": "x"}, *(item.to_dict() for item in first.output), *outputs]
    expected = "<user>x<assistant>(Paris and Rome.)get_weather:Paris;get_weather:Rome;<tool>Rain<tool>Rain"
    assert respond(client, "spelling", again).output_text == expected


def test_langchain_binds_tools_reads_their_calls_and_sends_results_back(scripted: Server) -> None:
    """Wherever it is installed."""
    langchain = pytest.importorskip("langchain_openai")
    chat = langchain.ChatOpenAI(
        base_url=f"http://{scripted.http}/v1", api_key="none", model="hermes", max_retries=0, timeout=PATIENCE
    )
    bound = chat.bind_tools(TOOLS)
    said = THOUGHT + CALLS["hermes"]
    whole = bound.invoke(said)
    merged = None
    for chunk in bound.stream(said):
        merged = chunk if merged is None else merged + chunk
    assert merged is not None
    for answer in (whole, merged):
        assert [(call["name"], call["args"]) for call in answer.tool_calls] == [
            ("get_weather", {"city": "Paris"}),
            ("get_weather", {"city": "Rome"}),
        ]
        assert answer.response_metadata["finish_reason"] == "tool_calls"
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "Sunny."} for call in whole.tool_calls]
    assert bound.invoke([{"role": "user", "content": said}, whole, *results]).content == "Sunny."
