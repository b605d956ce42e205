"""``/v1/chat/completions`` through the official client, whole and streamed, and the tokens that a conversation becomes."""

import asyncio
from typing import Any

import pytest
from http_calls import PATIENCE, post
from openai import AsyncOpenAI, OpenAI
from openai_calls import GREEDY, HI, chat_body, connected
from server import Server


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return connected(server)


def ask(client: OpenAI, extra: dict[str, Any] | None = None, **more: Any) -> Any:
    body = {"ignore_eos": True, **(extra or {})}
    return client.chat.completions.create(
        **{"model": "tiny", "messages": HI, "temperature": 0, "max_tokens": 8, **more, "extra_body": body}
    )


def test_an_answer_continues_what_the_chat_template_spells(client: OpenAI) -> None:
    answer = ask(client)
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", "tiny")
    (choice,) = answer.choices
    spelled = "<user>Hi</user><assistant>"
    continued = client.completions.create(**GREEDY, prompt=spelled, max_tokens=8)
    assert choice.message.content == continued.choices[0].text
    assert (choice.message.role, choice.message.refusal, choice.message.tool_calls) == ("assistant", None, None)
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "length", None)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(spelled), 8)


def test_a_stream_has_the_role_first_and_the_reason_last(client: OpenAI) -> None:
    whole = ask(client, max_tokens=20)
    first, *chunks, end, last = ask(client, max_tokens=20, stream=True, stream_options={"include_usage": True})
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == whole.choices[0].message.content
    assert all(chunk.choices[0].delta.role is None and chunk.choices[0].finish_reason is None for chunk in chunks)
    assert (end.choices[0].finish_reason, end.choices[0].delta.content) == ("length", None)
    assert {(chunk.id, chunk.object, chunk.usage) for chunk in (first, *chunks, end)} == {(last.id, "chat.completion.chunk", None)}
    assert (last.choices, last.usage.completion_tokens, last.usage.total_tokens) == ([], 20, whole.usage.total_tokens)


def test_the_clients_own_stream_helper_and_the_client_for_asyncio(server: Server, client: OpenAI) -> None:
    expected = ask(client).choices[0].message.content
    with client.chat.completions.stream(**GREEDY, messages=HI, max_tokens=8, stop=expected[5]) as stream:
        final = stream.get_final_completion().choices[0]
    assert (final.message.content, final.finish_reason) == (expected[: expected.index(expected[5])], "stop")

    async def stream_one(asynchronous: AsyncOpenAI) -> str:
        stream = await asynchronous.chat.completions.create(**GREEDY, messages=HI, max_tokens=8, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def both() -> tuple[str, str | None]:
        async with AsyncOpenAI(base_url=f"http://{server.http}/v1", api_key="none", timeout=PATIENCE) as asynchronous:
            whole = await asynchronous.chat.completions.create(**GREEDY, messages=HI, max_tokens=8)
            return await stream_one(asynchronous), whole.choices[0].message.content

    assert asyncio.run(both()) == (expected, expected)


def test_several_samples_whole_and_streamed(client: OpenAI) -> None:
    more: dict[str, Any] = {"n": 3, "temperature": 1.0, "seed": 3}
    expected = [choice.message.content for choice in ask(client, **more).choices]
    assert len(set(expected)) == 3
    texts, roles, ends = ["", "", ""], [0, 0, 0], [0, 0, 0]
    for chunk in ask(client, **more, stream=True):
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        roles[choice.index] += choice.delta.role == "assistant"
        ends[choice.index] += choice.finish_reason == "length"
    assert (texts, roles, ends) == (expected, [1, 1, 1], [1, 1, 1])


def test_log_probabilities_have_the_token_its_bytes_and_its_rivals(client: OpenAI) -> None:
    whole = ask(client, logprobs=True, top_logprobs=2, extra={"return_token_ids": True})
    choice = whole.choices[0]
    assert len(choice.logprobs.content) == len(choice.token_ids) == 8
    for entry in choice.logprobs.content:
        assert len(entry.top_logprobs) == 2
        best = entry.top_logprobs[0]
        assert (entry.token, entry.logprob, entry.bytes) == (best.token, best.logprob, best.bytes)
        assert best.logprob >= entry.top_logprobs[1].logprob
    assert (
        bytes(byte for entry in choice.logprobs.content for byte in entry.bytes).decode(errors="replace") == choice.message.content
    )
    chunks = ask(client, logprobs=True, top_logprobs=2, stream=True)
    streamed = [entry.token for chunk in chunks if chunk.choices[0].logprobs for entry in chunk.choices[0].logprobs.content]
    assert streamed == [entry.token for entry in choice.logprobs.content]
    assert ask(client, logprobs=True).choices[0].logprobs.content[0].top_logprobs == []


def test_the_newer_name_of_the_limit_counts_and_none_is_the_models(client: OpenAI) -> None:
    assert ask(client, max_completion_tokens=3).usage.completion_tokens == 3
    unlimited = ask(client, max_tokens=None, messages=[{"role": "user", "content": "x" * 2000}])
    assert unlimited.usage.total_tokens == 2048
    assert unlimited.choices[0].finish_reason == "length"


def test_stop_ends_an_answer(client: OpenAI) -> None:
    plain = ask(client).choices[0].message.content
    choice = ask(client, stop=plain[3]).choices[0]
    assert (choice.message.content, choice.finish_reason) == (plain[: plain.index(plain[3])], "stop")
    *_, end = ask(client, stop=plain[3], stream=True)
    assert (end.choices[0].finish_reason, end.choices[0].stop_reason) == ("stop", plain[3])


def test_fields_without_effect_are_taken(client: OpenAI) -> None:
    more: dict[str, Any] = {
        "user": "u", "metadata": {"a": "b"}, "store": False, "safety_identifier": "s", "prompt_cache_key": "k",
        "verbosity": "medium", "service_tier": "auto", "modalities": ["text"], "tools": [], "tool_choice": "none",
        "response_format": {"type": "text"},
        "parallel_tool_calls": True,
    }  # fmt: skip
    assert ask(client, **more).choices[0].message.content == ask(client).choices[0].message.content


def tokenize(server: Server, path: str = "/v1/tokenize", **body: Any) -> dict[str, Any]:
    reply = post(server, path, {"model": "tiny", **body})
    assert reply.status == 200, reply.json
    return dict(reply.json)


def spelled(server: Server, messages: list[dict[str, Any]], **more: Any) -> str:
    return "".join(tokenize(server, messages=messages, return_token_strs=True, **more)["token_strs"])


def test_messages_of_every_kind_reach_the_template(server: Server) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    assert spelled(server, messages) == "<system>Be brief.</system><user>a\nb</user><assistant>"
    assert spelled(server, HI, add_generation_prompt=False) == "<user>Hi</user>"
    begun = [*HI, {"role": "assistant", "content": "Well"}]
    assert spelled(server, begun, continue_final_message=True) == "<user>Hi</user><assistant>Well"
    assert spelled(server, HI, chat_template_kwargs={"enable_thinking": False}) == "<user>Hi</user><assistant>"


def test_a_conversation_is_answered_as_it_is_tokenised(server: Server, client: OpenAI) -> None:
    begun = [*HI, {"role": "assistant", "content": "Well"}]
    body = chat_body(messages=begun, continue_final_message=True, return_token_ids=True, prompt_logprobs=0)
    reply = post(server, "/v1/chat/completions", body).json
    told = tokenize(server, messages=begun, continue_final_message=True)
    assert reply["prompt_token_ids"] == told["tokens"]
    assert len(reply["prompt_logprobs"]) == told["count"]
    assert told["max_model_len"] == 2048
    continued = client.completions.create(**GREEDY, prompt=told["tokens"], max_tokens=8)
    assert reply["choices"][0]["message"]["content"] == continued.choices[0].text
    first, *_ = ask(client, stream=True, extra={"return_token_ids": True})
    assert first.prompt_token_ids == tokenize(server, messages=HI)["tokens"]


@pytest.mark.parametrize("base", ["", "/v1", "/openai/v1"])
def test_texts_become_tokens_and_texts_again(server: Server, base: str) -> None:
    text = "Hi, Wörld<|end|>" * 700  # long enough to be tokenised beside everything else
    told = tokenize(server, f"{base}/tokenize", prompt=text[:1000])
    assert (told["count"], told["token_strs"]) == (len(told["tokens"]), None)
    reply = post(server, f"{base}/detokenize", {"model": "tiny", "tokens": told["tokens"]})
    assert reply.json == {"prompt": text[:1000]}
    assert tokenize(server, f"{base}/tokenize", prompt=text)["count"] > 2048
