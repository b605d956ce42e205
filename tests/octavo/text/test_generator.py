"""One request's life in the front end, with the test in the engine's place."""

import asyncio

import msgspec
import pytest

from octavo.engine.messages import FinishReason, TokenLogprobs
from octavo.errors import Cancelled, EngineDead, ErrorFrame, Internal, InvalidRequest, Overloaded
from octavo.sampling import SamplingParams
from octavo.text.chat_template import ChatTemplate
from octavo.text.generator import LONG_TEXT, Generation, Generator, Observer
from octavo.text.request import Conversation, GenerateChunk, GenerateRequest

pytestmark = pytest.mark.anyio
STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH


class Noted(Observer):
    def __init__(self):
        self.first, self.gaps, self.done = [], [], []

    def first_token(self, generation, seconds):
        self.first.append(seconds)

    def next_tokens(self, generation, seconds, count):
        self.gaps.append((seconds, count))

    def finished(self, generation):
        self.done.append(generation)


@pytest.fixture
def observer():
    return Noted()


@pytest.fixture
def generator(client, tokenizer, info, observer):
    return Generator(client, tokenizer, info, observer)


def ask(prompt="The capital", stream=True, **sampling) -> GenerateRequest:
    return GenerateRequest(model="m", version=1, prompts=[prompt], stream=stream, sampling=SamplingParams(**sampling))


async def rest(generation: Generation) -> list[GenerateChunk]:
    return [chunk async for chunk in generation]


def text_of(chunks: list[GenerateChunk], sample: int = 0) -> str:
    return "".join(chunk.samples[sample].text for chunk in chunks)


async def test_each_output_is_a_chunk_for_a_reader_that_keeps_up(generator, client):
    generation = generator.generate(ask())
    assert client.requests[0].prompt_token_ids == [504, 3575]
    client.say(1, [282], num_cached_tokens=1, queue_seconds=0.25)
    first = await anext(generation)
    client.say(1, [4649], finish=LENGTH)
    last = await anext(generation)
    assert (first.samples[0].text, first.samples[0].token_ids, first.final) == (" of", [282], False)
    assert (first.prompt_token_ids, first.num_cached_tokens) == ([[504, 3575]], 1)
    assert (last.samples[0].text, last.samples[0].finish_reason, last.final) == (" France", "length", True)
    assert await rest(generation) == []
    assert generation.over
    assert generation.queue_seconds == 0.25


async def test_a_reader_that_waits_is_woken(generator, client):
    generation = generator.generate(ask())
    reader = asyncio.ensure_future(anext(generation))
    await asyncio.sleep(0)
    assert not reader.done()
    client.say(1, [282])
    assert (await reader).samples[0].text == " of"


async def test_what_a_step_makes_for_several_samples_is_told_of_once(generator, client):
    generation, taken = generator.generate(ask(n=3)), []
    generation.listen(lambda: taken.append(generation.take()))
    for step in ([282], [4649]):
        for request_id in (1, 2, 3):
            client.say(request_id, step)
        await asyncio.sleep(0)
    assert [[sample.text for sample in chunk.samples] for chunk in taken] == [[" of"] * 3, [" France"] * 3]


async def test_an_output_without_tokens_is_no_chunk(generator, client):
    generation = generator.generate(ask())
    reader = asyncio.ensure_future(anext(generation))
    await asyncio.sleep(0)
    client.say(1, [], queue_seconds=0.5, num_cached_tokens=2)
    await asyncio.sleep(0.01)
    assert not reader.done()
    client.say(1, [282], finish=LENGTH)
    chunk = await reader
    assert (chunk.samples[0].token_ids, chunk.num_cached_tokens) == ([282], 2)


async def test_a_bug_while_an_output_is_read_ends_the_request(generator, client, observer, tokenizer, monkeypatch, caplog):
    monkeypatch.setattr(tokenizer, "whole_text", lambda token_id: 1 / 0)
    generation = generator.generate(ask(n=2))
    client.say(1, [282], finish=LENGTH)
    with pytest.raises(Internal, match="the server's log has the details under the id") as caught:
        await asyncio.wait_for(rest(generation), 5)
    assert f"Internal error {caught.value.args[0][-9:-1]}" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert client.aborted == [2]
    assert observer.done == [generation]


async def test_what_nobody_read_is_merged(generator, client):
    generation = generator.generate(ask(logprobs=1))
    for _ in range(1000):
        client.say(1, [282], logprobs=[TokenLogprobs([282, 5], [-0.5, -1.0], [1, 2])])
    client.say(1, [4649], logprobs=[TokenLogprobs([4649, 5], [-0.5, -1.0], [1, 2])], finish=LENGTH)
    (chunk,) = await rest(generation)
    assert chunk.samples[0].text == " of" * 1000 + " France"
    assert len(chunk.samples[0].token_ids) == len(chunk.samples[0].logprobs) == 1001
    assert chunk.samples[0].cumulative_logprob == pytest.approx(-500.5)


async def test_without_streaming_there_is_one_chunk(generator, client):
    generation = generator.generate(ask(stream=False))
    client.say(1, [282])
    reader = asyncio.ensure_future(rest(generation))
    await asyncio.sleep(0.01)
    assert not reader.done()
    client.say(1, [4649, 2], finish=STOP, stop_token_id=2)
    (chunk,) = await reader
    assert chunk.final
    assert chunk.samples[0].text == " of France"
    assert chunk.samples[0].token_ids == [282, 4649, 2]


async def test_samples_of_one_prompt_are_one_engine_request_each(generator, client):
    generation = generator.generate(ask(n=3, seed=7, stop=("zzz",)))
    assert [(r.sample_index, r.sampling.n, r.sampling.seed, r.sampling.stop) for r in client.requests] == [
        (0, 1, 7, ()),
        (1, 1, 7, ()),
        (2, 1, 7, ()),
    ]
    client.say(2, [282])
    assert [s.text for s in (await anext(generation)).samples] == ["", " of", ""]
    client.say(1, [4649], finish=LENGTH)
    client.say(3, [4649], finish=LENGTH)
    assert [s.finish_reason for s in (await anext(generation)).samples] == ["length", None, "length"]
    client.say(2, [], finish=LENGTH)
    last = await anext(generation)
    assert last.final
    assert [s.finish_reason for s in last.samples] == ["length", "length", "length"]
    assert await rest(generation) == []


async def test_a_stop_string_ends_the_engine_request_and_what_follows_is_dropped(generator, client, tokenizer):
    generation = generator.generate(ask(stop=("Paris is",), logprobs=0))
    ids = tokenizer.encode("in Paris is nice")
    entries = [TokenLogprobs([i], [-1.0], [1]) for i in ids]
    client.say(1, ids[:2], logprobs=entries[:2])
    assert (await anext(generation)).samples[0].text == "in "
    client.say(1, ids[2:], logprobs=entries[2:])
    (chunk,) = await rest(generation)
    sample = chunk.samples[0]
    assert (sample.text, sample.finish_reason, sample.stop_reason) == ("", "stop", "Paris is")
    assert sample.token_ids == ids[2:3]
    assert len(sample.logprobs) == 1
    assert sample.cumulative_logprob == -3.0
    assert client.aborted == [1]


async def test_a_stop_string_may_be_shown(generator, client, tokenizer):
    generation = generator.generate(ask(stop=("Paris",), include_stop_str_in_output=True))
    client.say(1, tokenizer.encode("in Paris is"))
    assert text_of(await rest(generation)) == "in Paris"


async def test_stop_strings_wait_for_min_tokens(generator, client, tokenizer):
    ids = tokenizer.encode("a a a a")
    generation = generator.generate(ask(stop=(" a",), min_tokens=2))
    client.say(1, ids)
    chunks = await rest(generation)
    assert text_of(chunks) == "a a"
    assert chunks[-1].samples[0].token_ids == ids[:3]


@pytest.mark.parametrize(
    ("sampling", "token_id", "shown"),
    [
        ({}, 2, (" of", None)),
        ({"stop_token_ids": (4649,)}, 4649, (" of", 4649)),
        ({"stop_token_ids": (4649,), "include_stop_str_in_output": True}, 4649, (" of France", 4649)),
        ({"ignore_eos": True, "stop_token_ids": (2,)}, 2, (" of", 2)),
        ({"skip_special_tokens": False}, 2, (" of", None)),
    ],
)
async def test_a_stop_token_is_counted_but_not_shown(generator, client, sampling, token_id, shown):
    generation = generator.generate(ask(**sampling))
    client.say(1, [282, token_id], finish=STOP, stop_token_id=token_id)
    (chunk,) = await rest(generation)
    sample = chunk.samples[0]
    assert (sample.text, sample.stop_reason) == shown
    assert (sample.token_ids, sample.finish_reason) == ([282, token_id], "stop")


async def test_an_unfinished_character_is_flushed_at_the_end(generator, client, tokenizer):
    ids = tokenizer.encode("𝔘")
    generation = generator.generate(ask())
    client.say(1, ids[:-1], finish=LENGTH)
    assert text_of(await rest(generation)) == "\ufffd"


async def test_held_text_is_flushed_at_the_end(generator, client, tokenizer):
    generation = generator.generate(ask(stop=("France!",)))
    client.say(1, tokenizer.encode("in France"), finish=LENGTH)
    (chunk,) = await rest(generation)
    assert (chunk.samples[0].text, chunk.samples[0].finish_reason) == ("in France", "length")


async def test_text_may_be_left_to_the_caller(generator, client):
    generation = generator.generate(ask(detokenize=False))
    client.say(1, [282, 2], finish=STOP, stop_token_id=2)
    (chunk,) = await rest(generation)
    assert (chunk.samples[0].text, chunk.samples[0].token_ids) == ("", [282, 2])


async def test_cancel_aborts_every_sample_and_tells_the_reader(generator, client, observer):
    generation = generator.generate(ask(n=2))
    reader = asyncio.ensure_future(anext(generation))
    await asyncio.sleep(0)
    generation.cancel()
    generation.cancel()
    with pytest.raises(Cancelled, match="Request was cancelled"):
        await reader
    assert client.aborted == [1, 2]
    assert observer.done == [generation]
    assert await rest(generation) == []


async def test_cancel_after_the_end_changes_nothing(generator, client):
    generation = generator.generate(ask())
    client.say(1, [282], finish=LENGTH)
    generation.cancel()
    assert text_of(await rest(generation)) == " of"
    assert client.aborted == []


async def test_the_first_error_reaches_the_reader_after_what_came_before(generator, client):
    generation = generator.generate(ask(n=2))
    client.say(1, [282])
    client.say(2, [], finish=FinishReason.ERROR, error=ErrorFrame.of(EngineDead("It died.")))
    client.say(1, [], finish=FinishReason.ERROR, error=ErrorFrame.of(Overloaded("Second.")))
    chunk = await anext(generation)
    assert (chunk.samples[0].text, chunk.final) == (" of", False)
    with pytest.raises(EngineDead, match="It died"):
        await anext(generation)
    assert client.aborted == [1]
    assert await rest(generation) == []


async def test_without_streaming_an_error_replaces_the_text(generator, client):
    generation = generator.generate(ask(stream=False))
    client.say(1, [282])
    client.say(1, [], finish=FinishReason.ERROR, error=ErrorFrame.of(EngineDead("It died.")))
    with pytest.raises(EngineDead):
        await anext(generation)


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
    spelled = tokenizer.encode(tokenizer.chat_template.render(HI.messages), add_special_tokens=False)
    assert client.requests[0].prompt_token_ids == spelled
    monkeypatch.setattr(tokenizer, "chat_template", ChatTemplate("{{ 'x' * 10000000 }}", {}))
    with pytest.raises(InvalidRequest, match="The prompt holds at least 123457 tokens"):
        Generator(client, tokenizer, roomy).generate(ask(HI))


async def test_a_model_without_a_template_takes_no_messages(generator, client, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", None)
    text = "The model has no chat template, so it takes a prompt as text or token ids and no messages."
    with pytest.raises(InvalidRequest) as refusal:
        generator.generate(ask(HI))
    assert str(refusal.value) == text


async def test_a_long_conversation_is_spelled_beside_the_loop(client, tokenizer, info):
    roomy = msgspec.structs.replace(info, max_model_len=1_000_000)
    long = Conversation([{"role": "user", "content": "word " * LONG_TEXT}])
    Generator(client, tokenizer, roomy).generate(ask(long))
    assert client.requests == []
    while not client.requests:
        await asyncio.sleep(0.001)
    assert len(client.requests[0].prompt_token_ids) > LONG_TEXT


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


async def test_prompt_logprobs_come_once_and_are_computed_once(generator, client):
    generation = generator.generate(ask(n=2, prompt_logprobs=1))
    assert [r.sampling.prompt_logprobs for r in client.requests] == [1, None]
    entries = [None, TokenLogprobs([3575], [-1.0], [1])]
    client.say(1, [282], prompt_logprobs=entries, queue_seconds=0.0)
    client.say(2, [282], queue_seconds=0.0)
    assert (await anext(generation)).prompt_logprobs == [entries]
    client.say(1, [282])
    assert (await anext(generation)).prompt_logprobs is None


async def test_metrics_see_first_token_gaps_and_the_end(generator, client, observer):
    generation = generator.generate(ask(n=2))
    client.say(1, [282])
    client.say(2, [282, 282])
    client.say(1, [282, 282], finish=LENGTH)
    client.say(2, [2], finish=STOP, stop_token_id=2)
    assert len(observer.first) == 2
    assert [count for _, count in observer.gaps] == [2, 1]
    assert observer.done == [generation]
    assert (generation.num_prompt_tokens, generation.num_generation_tokens) == (2, 6)
    assert generation.arrived_at <= generation.first_token_at <= generation.finished_at
    assert generation.error is None
