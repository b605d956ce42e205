"""What a request brings to the front end: prompts that are read, in the loop or beside it, or refused."""

import asyncio
import gc

import msgspec
import pytest
from asked import ask

from octavo.engine.messages import FinishReason, TokenLogprobs
from octavo.errors import Cancelled, InvalidRequest
from octavo.text.chat_template import ChatTemplate
from octavo.text.generator import Generator
from octavo.text.prompts import LONG_TEXT
from octavo.text.request import Conversation

pytestmark = pytest.mark.anyio
LENGTH = FinishReason.LENGTH


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (ask(""), "The prompt must hold at least one token."),
        (ask([]), "The prompt must hold at least one token."),
        (ask("a " * 64), "The prompt holds 65 tokens, but the model takes at most 64 with the answer, so at most 63."),
        (ask([5] * 64), "The prompt holds 64 tokens, but the model takes at most 64 with the answer, so at most 63."),
        (ask([5, 49152]), "The prompt must hold token ids between 0 and 49151, the model's vocabulary."),
        (ask([-1]), "The prompt must hold token ids between 0 and 49151, the model's vocabulary."),
        (ask(stop_token_ids=(49152,)), "stop_token_ids must hold token ids between 0 and 49151, the model's vocabulary."),
        (ask(logit_bias={-1: 1.0}), "logit_bias must hold token ids between 0 and 49151, the model's vocabulary."),
        (ask(logprobs=6), "logprobs must be at most 5, got 6."),
        (ask(prompt_logprobs=6), "prompt_logprobs must be at most 5, got 6."),
        (ask(stop=("x",), detokenize=False), "stop needs detokenize to be true, because stop strings are searched in the text."),
        (
            ask("x" * 10_000_000),
            "The prompt holds at least 123457 tokens, but the model takes at most 64 with the answer, so at most 63.",
        ),
    ],
)
async def test_what_can_never_be_served_is_refused_with_the_figures(generator, client, request_, text):
    with pytest.raises(InvalidRequest) as refusal:
        generator.generate(request_)
    assert str(refusal.value) == text
    assert client.requests == []


async def test_several_prompts_are_answered_prompt_after_prompt(generator, client):
    request = msgspec.structs.replace(ask(n=2, seed=7, prompt_logprobs=1), prompts=["The capital", [5]])
    generation = generator.generate(request)
    assert [(r.prompt_token_ids, r.sample_index, r.sampling.prompt_logprobs) for r in client.requests] == [
        ([504, 3575], 0, 1),
        ([504, 3575], 1, None),
        ([5], 0, 1),
        ([5], 1, None),
    ]
    entries = [None, TokenLogprobs([3575], [-1.0], [1])]
    client.say(3, [282], num_cached_tokens=1, queue_seconds=0.5, prompt_logprobs=[None])
    client.say(1, [282], num_cached_tokens=2, queue_seconds=0.0, prompt_logprobs=entries)
    chunk = await anext(generation)
    assert [s.text for s in chunk.samples] == [" of", "", " of", ""]
    assert (chunk.prompt_token_ids, chunk.num_cached_tokens) == ([[504, 3575], [5]], 3)
    assert chunk.prompt_logprobs == [entries, [None]]
    client.say(2, [4649], finish=LENGTH, num_cached_tokens=1, queue_seconds=0.0)
    for request_id in (1, 4):
        client.say(request_id, [4649], finish=LENGTH)
    chunk = await anext(generation)
    assert (chunk.final, chunk.prompt_logprobs) == (False, None)
    assert chunk.num_cached_tokens == 2  # what the second sample had to compute of the first prompt is not cached
    assert [s.finish_reason for s in chunk.samples] == ["length", "length", None, "length"]
    client.say(3, [4649], finish=LENGTH)
    assert (await anext(generation)).final
    assert generation.num_prompt_tokens == 3


@pytest.mark.parametrize(
    ("prompts", "n", "text"),
    [
        ([], 1, "A request must hold between 1 and 128 prompts, got 0."),
        (["a"] * 129, 1, "A request must hold between 1 and 128 prompts, got 129."),
        (["a"] * 100, 11, "A request must ask for at most 1024 samples of all its prompts, got 1100."),
        (["a", ""], 1, "The prompt must hold at least one token."),
        (["a", Conversation([{"role": "user", "content": "x" * 10_000_000}])], 1, "The prompt holds at least 123457 tokens"),
    ],
)
async def test_prompts_are_refused_all_or_none(generator, client, prompts, n, text):
    with pytest.raises(InvalidRequest) as refusal:
        generator.generate(msgspec.structs.replace(ask(n=n), prompts=prompts))
    assert str(refusal.value).startswith(text)
    assert client.requests == []


HI = Conversation([{"role": "user", "content": "Hi"}])


async def test_a_conversation_is_spelled_by_the_models_template_and_no_token_is_added(client, tokenizer, info, monkeypatch):
    roomy = msgspec.structs.replace(info, max_model_len=4096)
    Generator(client, tokenizer, roomy).generate(ask(HI))
    while not client.requests:
        await asyncio.sleep(0.001)
    spelled = tokenizer.encode(tokenizer.chat_template.render(HI.messages), add_special_tokens=False)
    assert client.requests[0].prompt_token_ids == spelled
    monkeypatch.setattr(tokenizer, "chat_template", ChatTemplate("{{ 'x' * 10000000 }}", {}))
    with pytest.raises(InvalidRequest, match="The prompt holds at least 123457 tokens"):
        await anext(Generator(client, tokenizer, roomy).generate(ask(HI)))


async def test_a_model_without_a_template_takes_no_messages(generator, client, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", None)
    text = "The model has no chat template, so it takes a prompt as text or token ids and no messages."
    with pytest.raises(InvalidRequest) as refusal:
        generator.generate(ask(HI))
    assert str(refusal.value) == text


LONG = "word " * LONG_TEXT


@pytest.mark.parametrize(
    ("conversation", "tokens"),
    [
        (HI, 1),
        (Conversation([{"role": "user", "content": LONG}]), LONG_TEXT),
        (Conversation([{"role": "user", "content": "Hi", "reasoning": LONG}]), 1),
        (Conversation([{"role": "user", "content": "Hi"}], {"documents": [{"text": LONG}]}), 1),
    ],
)
async def test_a_conversation_is_spelled_beside_the_loop(client, tokenizer, info, conversation, tokens):
    roomy = msgspec.structs.replace(info, max_model_len=1_000_000)
    Generator(client, tokenizer, roomy).generate(ask(conversation))
    assert client.requests == []
    while not client.requests:
        await asyncio.sleep(0.001)
    assert len(client.requests[0].prompt_token_ids) > tokens


async def test_a_prompt_that_just_fits_is_served(generator, client):
    generator.generate(ask([5] * 63))
    assert len(client.requests) == 1


async def test_a_long_text_is_tokenised_beside_the_loop(tokenizer, client, info, observer):
    text = "word " * LONG_TEXT
    roomy = msgspec.structs.replace(info, max_model_len=1_000_000)
    generation = Generator(client, tokenizer, roomy, observer).generate(ask(text))
    assert client.requests == []
    reader = asyncio.ensure_future(anext(generation))
    while not client.requests:
        await asyncio.sleep(0.001)
    assert client.requests[0].prompt_token_ids == tokenizer.encode(text)
    client.say(1, [282])
    assert (await reader).prompt_token_ids == [tokenizer.encode(text)]


async def test_a_long_text_that_does_not_fit_fails_the_reader(tokenizer, client, info):
    larger = msgspec.structs.replace(info, max_model_len=1000)
    generation = Generator(client, tokenizer, larger).generate(ask("word " * 2000))
    with pytest.raises(InvalidRequest, match="The prompt holds 2001 tokens, but the model takes at most 1000"):
        await anext(generation)
    assert client.requests == []


async def test_a_generation_cancelled_while_its_text_is_tokenised_is_never_sent(tokenizer, client, info):
    roomy = msgspec.structs.replace(info, max_model_len=1_000_000)
    generation = Generator(client, tokenizer, roomy).generate(ask("word " * LONG_TEXT))
    generation.cancel()
    with pytest.raises(Cancelled):
        await anext(generation)
    await asyncio.sleep(0.3)
    assert client.requests == []


async def test_a_refusal_that_nobody_waits_for_any_more_is_no_complaint(tokenizer, client, info, caplog):
    small = msgspec.structs.replace(info, max_model_len=1000)
    generation = Generator(client, tokenizer, small).generate(ask("word " * 2000))
    generation.cancel()
    with pytest.raises(Cancelled):
        await anext(generation)
    await asyncio.sleep(0.3)
    gc.collect()
    assert not caplog.records
