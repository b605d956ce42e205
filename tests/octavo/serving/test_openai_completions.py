"""``/v1/completions`` through the official client: every way to say a prompt, every option, whole and streamed."""

import asyncio
from typing import Any

import pytest
from http_calls import PATIENCE, generate_body, post
from openai import AsyncOpenAI, BadRequestError, OpenAI
from openai_calls import GREEDY, connected
from server import Server
from tiny import EOS


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return connected(server)


def ask(client: OpenAI, prompt: Any = "hello", max_tokens: int = 8, extra: dict[str, Any] | None = None, **more: Any) -> Any:
    body = {"ignore_eos": True, **(extra or {})}
    return client.completions.create(
        **{"model": "tiny", "temperature": 0, "prompt": prompt, "max_tokens": max_tokens, **more, "extra_body": body}
    )


def test_an_answer_is_what_tritons_generate_answers(server: Server, client: OpenAI) -> None:
    expected = post(server, "/v2/models/tiny/generate", generate_body(exclude_input_in_output=True)).json["text_output"]
    answer = ask(client)
    assert answer.id.startswith("cmpl-")
    assert (answer.object, answer.model) == ("text_completion", "tiny")
    (choice,) = answer.choices
    assert (choice.index, choice.text, choice.finish_reason, choice.logprobs) == (0, expected, "length", None)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 8, 13)
    assert connected(server, "/openai/v1").completions.create(**GREEDY, prompt="hello", max_tokens=8).choices[0].text == expected


def test_a_stream_is_the_same_in_pieces(client: OpenAI) -> None:
    whole = ask(client, max_tokens=20)
    *chunks, last = ask(client, max_tokens=20, stream=True, stream_options={"include_usage": True})
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert {(chunk.id, chunk.object, chunk.usage) for chunk in chunks} == {(last.id, "text_completion", None)}
    assert (last.choices, last.usage.completion_tokens) == ([], 20)
    assert all(chunk.usage is None for chunk in ask(client, stream=True))


def test_usage_in_every_chunk(client: OpenAI) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = list(ask(client, stream=True, stream_options=options))
    counts = [chunk.usage.completion_tokens for chunk in chunks]
    assert counts == sorted(counts)
    assert (counts[0] < 8, counts[-1]) == (True, 8)


def test_many_at_once_by_the_client_for_asyncio(server: Server, client: OpenAI) -> None:
    expected = [ask(client, f"{number}").choices[0].text for number in range(4)]

    async def one(asynchronous: AsyncOpenAI, number: int) -> str:
        stream = await asynchronous.completions.create(**GREEDY, prompt=f"{number}", max_tokens=8, stream=True)
        return "".join([chunk.choices[0].text async for chunk in stream])

    async def all_of_them() -> list[str]:
        async with AsyncOpenAI(base_url=f"http://{server.http}/v1", api_key="none", timeout=PATIENCE) as asynchronous:
            return await asyncio.gather(*(one(asynchronous, number) for number in range(4)))

    assert asyncio.run(all_of_them()) == expected


def test_prompts_are_texts_or_token_ids_one_or_several(client: OpenAI) -> None:
    ids = [ask(client, text, extra={"return_token_ids": True}).choices[0].prompt_token_ids for text in "ab"]
    expected = [choice.text for choice in ask(client, ["a", "b"]).choices]
    assert [ask(client, text).choices[0].text for text in "ab"] == expected
    assert [ask(client, token_ids).choices[0].text for token_ids in ids] == expected
    answer = ask(client, ids)
    assert [(choice.index, choice.text) for choice in answer.choices] == list(enumerate(expected))
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 16)
    pieces, ends = {0: "", 1: ""}, []
    stop = {"stop": expected[0][2]}
    first, second = (choice.text for choice in ask(client, ["a", "b"], **stop).choices)
    for chunk in ask(client, ["a", "b"], stream=True, **stop):
        pieces[chunk.choices[0].index] += chunk.choices[0].text
        ends += [chunk.choices[0].index] if chunk.choices[0].finish_reason else []
    assert (pieces, sorted(ends)) == ({0: first, 1: second}, [0, 1])


def test_samples_of_each_prompt_are_numbered_through(client: OpenAI) -> None:
    answer = ask(client, ["a", "bcd"], n=2, temperature=1.0, seed=7)
    texts = [choice.text for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert len(set(texts)) == 4
    assert [choice.text for choice in ask(client, ["a", "bcd"], n=2, temperature=1.0, seed=7).choices] == texts
    assert answer.usage.prompt_tokens == 4


def test_stops_end_an_answer_and_are_told(client: OpenAI) -> None:
    plain = ask(client).choices[0].text
    stopped = ask(client, stop=[plain[2:4], "nowhere"]).choices[0]
    assert (stopped.text, stopped.finish_reason, stopped.stop_reason) == (plain[: plain.index(plain[2:4])], "stop", plain[2:4])
    kept = ask(client, stop=plain[2:4], extra={"include_stop_str_in_output": True}).choices[0]
    assert kept.text == plain[: plain.index(plain[2:4]) + 2]
    token_ids = ask(client, extra={"return_token_ids": True}).choices[0].token_ids
    by_id = ask(client, extra={"stop_token_ids": [token_ids[3]], "return_token_ids": True}).choices[0]
    assert by_id.token_ids == token_ids[: token_ids.index(token_ids[3]) + 1]
    assert (by_id.finish_reason, by_id.stop_reason) == ("stop", token_ids[3])


def test_options_of_the_sampler_reach_it(client: OpenAI) -> None:
    greedy = ask(client, extra={"return_token_ids": True}).choices[0]
    wanted = 65
    assert ask(client, logit_bias={str(wanted): 1000}, extra={"return_token_ids": True}).choices[0].token_ids == [wanted] * 8
    punished = ask(client, logit_bias={str(wanted): 1000}, frequency_penalty=2, presence_penalty=2).choices[0]
    assert punished.text
    assert ask(client, temperature=1.5, extra={"top_k": 1}).choices[0].text == greedy.text
    assert ask(client, temperature=1.5, top_p=1e-6).choices[0].text == greedy.text
    assert ask(client, temperature=1.5, extra={"min_p": 1.0}).choices[0].text == greedy.text
    varied = ask(client, max_tokens=60, extra={"repetition_penalty": 100.0, "return_token_ids": True}).choices[0].token_ids
    assert len(set(varied)) == 60


def test_fields_without_effect_are_taken(client: OpenAI) -> None:
    extra = {"session_id": "s", "priority": 3, "best_of": 1, "suffix": None, "use_beam_search": False, "guided_json": None}
    assert ask(client, user="somebody", extra=extra).choices[0].text == ask(client).choices[0].text


def test_a_cached_prefix_is_counted_unless_it_is_salted_otherwise(client: OpenAI) -> None:
    prompt = "a prompt that is longer than two pages of sixteen tokens each"

    def cached(salt: str) -> int:
        details = ask(client, prompt, extra={"cache_salt": salt}).usage.prompt_tokens_details
        return int(details.cached_tokens)

    assert [cached("one"), cached("one"), cached("another")] == [0, 48, 0]
    *_, last = ask(client, prompt, stream=True, stream_options={"include_usage": True}, extra={"cache_salt": "one"})
    assert last.usage.prompt_tokens_details.cached_tokens == 48


def test_log_probabilities_of_the_answer(client: OpenAI) -> None:
    choice = ask(client, logprobs=2, extra={"return_token_ids": True}).choices[0]
    told = choice.logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset) == 8
    for token, logprob, top in zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True):
        assert top[token] == logprob == max(top.values()) <= 0
        assert 1 <= len(top) <= 2
    for token, offset in zip(told.tokens, told.text_offset, strict=True):
        assert "\ufffd" in token or choice.text.startswith(token, offset)
    named = ask(client, logprobs=0, extra={"return_tokens_as_token_ids": True}).choices[0].logprobs
    assert named.tokens == [f"token_id:{token_id}" for token_id in choice.token_ids]
    assert [list(top) for top in named.top_logprobs] == [[token] for token in named.tokens]


@pytest.mark.parametrize(("echo", "offsets"), [(False, [0, 0, 1, 1, 1, 2, 3, 3]), (True, [0, 1, 1, 2, 3, 3, 4, 4, 4, 5, 6, 6])])
@pytest.mark.parametrize("as_ids", [False, True])
def test_offsets_are_those_of_the_characters_that_tokens_are_parts_of(
    client: OpenAI, echo: bool, offsets: list[int], as_ids: bool
) -> None:
    """The tiny model has a token for each byte."""
    extra = {"structured_outputs": {"choice": ["é€xé"]}, "ignore_eos": False, "return_tokens_as_token_ids": as_ids}
    asked: dict[str, Any] = {"prompt": "aéb", "max_tokens": 30, "logprobs": 0, "echo": echo, "extra": extra}
    whole = ask(client, **asked).choices[0]
    assert whole.text == "aéb" * echo + "é€xé"
    assert whole.logprobs.text_offset[: len(offsets)] == offsets
    told = [chunk.choices[0].logprobs for chunk in ask(client, **asked, stream=True) if chunk.choices[0].logprobs]
    assert [offset for one in told for offset in one.text_offset] == whole.logprobs.text_offset
    assert [token for one in told for token in one.tokens] == whole.logprobs.tokens


def test_offsets_of_an_echo_count_special_tokens_that_the_prompt_spells(client: OpenAI) -> None:
    for prompt in ("a<|end|>b<|end|>", [64, EOS, 65, EOS]):
        choice = ask(client, prompt, 1, logprobs=0, echo=True).choices[0]
        assert choice.text.startswith("a<|end|>b<|end|>")
        assert choice.logprobs.text_offset == [0, 1, 8, 9, 16]


@pytest.mark.parametrize("max_tokens", [0, 4])
@pytest.mark.parametrize("prompts", [["hello", "hi"], [[104, 105], [64]]])
def test_an_echo_begins_with_the_prompt_and_its_log_probabilities(client: OpenAI, prompts: list[Any], max_tokens: int) -> None:
    whole = ask(client, prompts, max_tokens, echo=True, logprobs=1)
    for choice, prompt in zip(whole.choices, prompts, strict=True):
        told, length = choice.logprobs, len(prompt)
        assert len(told.tokens) == length + max_tokens
        assert choice.text.startswith("".join(told.tokens[:length]))
        assert isinstance(prompt, list) or choice.text.startswith(prompt)
        assert (told.token_logprobs[0], told.top_logprobs[0], told.text_offset[0]) == (None, None, 0)
        assert all(logprob <= 0 for logprob in told.token_logprobs[1:])
        assert choice.finish_reason == "length"
    assert whole.usage.completion_tokens == 2 * max_tokens
    texts: dict[int, str] = {0: "", 1: ""}
    tokens: dict[int, list[float | None]] = {0: [], 1: []}
    for chunk in ask(client, prompts, max_tokens, echo=True, logprobs=1, stream=True):
        (choice,) = chunk.choices
        texts[choice.index] += choice.text
        tokens[choice.index] += choice.logprobs.token_logprobs if choice.logprobs else []
    for choice in whole.choices:
        assert texts[choice.index] == choice.text
        assert tokens[choice.index] == pytest.approx(choice.logprobs.token_logprobs)


def test_an_echo_of_several_samples_waits_for_the_prompts_log_probabilities(client: OpenAI) -> None:
    more: dict[str, Any] = {"echo": True, "logprobs": 0, "n": 3, "temperature": 1.0, "seed": 5}
    whole = ask(client, **more)
    texts = {0: "", 1: "", 2: ""}
    for chunk in ask(client, **more, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert [texts[choice.index] for choice in whole.choices] == [choice.text for choice in whole.choices]
    assert all(choice.text.startswith("hello") for choice in whole.choices)
    assert ask(client, echo=True).choices[0].text == "hello" + ask(client).choices[0].text


def test_log_probabilities_of_the_prompt_as_vllm_tells_them(client: OpenAI) -> None:
    choice = ask(client, extra={"prompt_logprobs": 1}).choices[0]
    first, *rest = choice.prompt_logprobs
    assert (first, len(rest)) == (None, 4)
    for entry, letter in zip(rest, "ello", strict=True):
        assert letter in {told["decoded_token"] for told in entry.values()}
        assert 1 in {told["rank"] for told in entry.values()}
    with pytest.raises(BadRequestError, match="prompt_logprobs must be left out if stream is true"):
        ask(client, stream=True, extra={"prompt_logprobs": 1})
