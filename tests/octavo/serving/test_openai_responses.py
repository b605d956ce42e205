"""``/v1/responses`` through the official client: text, whole and streamed, nothing kept."""

import asyncio
from typing import Any

import pytest
from http_calls import PATIENCE
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from openai_calls import GREEDY, connected
from server import Server

EVENTS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.incomplete",
]


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return connected(server)


def ask(client: OpenAI, **more: Any) -> Any:
    return client.responses.create(**{**GREEDY, "input": "Hi", "max_output_tokens": 8, **more})


def test_an_answer_is_the_one_to_the_same_conversation(client: OpenAI) -> None:
    chat = client.chat.completions.create(
        **GREEDY, messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}], max_tokens=8
    )
    response = ask(client, instructions="Be brief.", metadata={"a": "b"})
    assert response.output_text == chat.choices[0].message.content
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (response.id.split("_")[0], response.object, response.model) == ("resp", "response", "tiny")
    assert (response.instructions, response.metadata, response.store, response.error) == ("Be brief.", {"a": "b"}, False, None)
    usage = response.usage
    assert (usage.input_tokens, usage.output_tokens) == (chat.usage.prompt_tokens, 8)
    assert usage.total_tokens == usage.input_tokens + 8
    assert usage.output_tokens_details.reasoning_tokens == 0
    assert usage.input_tokens_details.cached_tokens % 16 == 0


def test_input_tokens_are_counted_as_for_an_answer(client: OpenAI) -> None:
    said: dict[str, Any] = {"input": [{"role": "user", "content": "Hi"}], "instructions": "Be brief."}
    counted = client.responses.input_tokens.count(model="tiny", **said)
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", ask(client, **said).usage.input_tokens)
    with pytest.raises(BadRequestError, match="input must hold at least one message") as refusal:
        client.responses.input_tokens.count(model="tiny", input=[])
    assert refusal.value.param == "input"
    with pytest.raises(NotFoundError, match="'none' does not exist"):
        client.responses.input_tokens.count(model="none", input="Hi")


def test_the_conversation_goes_on_with_what_was_answered(client: OpenAI) -> None:
    first = ask(client)
    question = {"role": "user", "content": [{"type": "input_text", "text": "And?"}]}
    again = ask(client, input=[{"role": "user", "content": "Hi"}, *(item.to_dict() for item in first.output), question])
    chat = client.chat.completions.create(
        **GREEDY,
        messages=[
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": first.output_text},
            {"role": "user", "content": "And?"},
        ],
        max_tokens=8,
    )
    assert again.output_text == chat.choices[0].message.content


def test_a_stream_tells_of_every_step(server: Server, client: OpenAI) -> None:
    whole = ask(client)
    events = list(ask(client, stream=True))
    kinds = [event.type for event in events]
    assert list(dict.fromkeys(kinds)) == EVENTS
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    last = events[-1].response
    assert (last.output_text, last.usage.output_tokens, last.status) == (whole.output_text, 8, "incomplete")
    with client.responses.stream(**GREEDY, input="Hi", max_output_tokens=8) as stream:
        assert list(dict.fromkeys(event.type for event in stream)) == EVENTS

    async def streamed() -> str:
        async with AsyncOpenAI(base_url=f"http://{server.http}/v1", api_key="none", timeout=PATIENCE) as asynchronous:
            stream = await asynchronous.responses.create(**GREEDY, input="Hi", max_output_tokens=8, stream=True)
            return "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])

    assert asyncio.run(streamed()) == whole.output_text


def test_an_answer_that_ends_by_itself_is_complete(client: OpenAI) -> None:
    tokens = client.completions.create(**GREEDY, prompt="<user>Hi</user><assistant>", max_tokens=8, logprobs=0)
    extra = {"stop_token_ids": list(range(256)), "ignore_eos": True}
    for response in (ask(client, extra_body=extra), list(ask(client, extra_body=extra, stream=True))[-1].response):
        assert (response.status, response.incomplete_details) == ("completed", None)
        assert response.completed_at >= response.created_at
        assert tokens.choices[0].text.startswith(response.output_text)


def test_log_probabilities_if_they_are_included(client: OpenAI) -> None:
    include = ["message.output_text.logprobs", "reasoning.encrypted_content"]
    text = ask(client, include=include, top_logprobs=2).output[0].content[0]
    assert len(text.logprobs) == 8
    assert all(len(entry.top_logprobs) == 2 and entry.logprob <= 0 for entry in text.logprobs)
    deltas = [event for event in ask(client, include=include, stream=True) if event.type == "response.output_text.delta"]
    assert [entry.token for event in deltas for entry in event.logprobs] == [entry.token for entry in text.logprobs]
    assert ask(client, top_logprobs=2).output[0].content[0].logprobs == []


def test_fields_without_effect_are_taken(client: OpenAI) -> None:
    more: dict[str, Any] = {
        "user": "u", "safety_identifier": "s", "prompt_cache_key": "k", "store": False, "background": False, "tools": [],
        "tool_choice": "auto", "truncation": "disabled", "parallel_tool_calls": True, "text": {"format": {"type": "text"}},
        "service_tier": "default",
    }  # fmt: skip
    response = ask(client, **more)
    assert (response.output_text, response.user) == (ask(client).output_text, "u")
