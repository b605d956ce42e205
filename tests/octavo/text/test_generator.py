"""One request's life in the front end, with the test in the engine's place."""

import asyncio

import msgspec
import pytest
from asked import ask

from octavo.engine.messages import FinishReason, TokenLogprobs
from octavo.errors import Cancelled, EngineDead, ErrorFrame, Internal, Overloaded
from octavo.text.generator import Generation
from octavo.text.request import GenerateChunk

pytestmark = pytest.mark.anyio
STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH


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
    monkeypatch.setattr(tokenizer, "whole_texts", {})
    generation = generator.generate(ask(n=2))
    client.say(1, [282], finish=LENGTH)
    with pytest.raises(Internal, match="the server's log has the details under the id") as caught:
        await asyncio.wait_for(rest(generation), 5)
    assert f"Internal error {caught.value.args[0][-9:-1]}" in caplog.text
    assert "KeyError" in caplog.text
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


@pytest.mark.parametrize(("include", "detokenize"), [(False, True), (True, True), (False, False)])
async def test_a_stop_word_of_token_ids_ends_the_request(generator, client, tokenizer, include, detokenize):
    asked = ask(min_tokens=2, include_stop_str_in_output=include, detokenize=detokenize)
    generation = generator.generate(msgspec.structs.replace(asked, stop_words=[(1011, 1012), (1012, 1013, 1014)]))
    texts, ids = [], []
    for said in ([1011], [1012], [1012, 1013], [1012, 1013], [1013, 1011], [1012, 1009]):
        client.say(1, said)
        sample = generation.take().samples[0]
        texts.append(sample.text)
        ids.append(sample.token_ids)
    assert ids == [[1011], [1012], [1012, 1013], [1012, 1013], [1013, 1011], [1012]]
    held = [[], [], [1011, 1012], [1012, 1013], [1012, 1013, 1013], []]
    shown = [[1011], [1012], [1012, 1013], [1012, 1013], [1013, 1011], [1012]] if include else held
    assert texts == ["".join(map(tokenizer.token_text, piece)) if detokenize else "" for piece in shown]
    assert (sample.finish_reason, sample.stop_reason, client.aborted) == ("stop", "[1011, 1012]", [1])


async def test_text_held_for_a_stop_word_is_flushed_at_the_end(generator, client, tokenizer):
    generation = generator.generate(msgspec.structs.replace(ask(stop=["nothing"]), stop_words=[(1011, 1012, 1013)]))
    client.say(1, [1011, 1012])
    assert generation.take().samples[0].text == ""
    client.say(1, [], finish=FinishReason.LENGTH)
    assert generation.take().samples[0].text == tokenizer.token_text(1011) + tokenizer.token_text(1012)


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
    assert [count for _, count in observer.first] == [1, 2]
    assert [count for _, count in observer.gaps] == [2, 1]
    assert observer.done == [generation]
    assert (generation.num_prompt_tokens, generation.num_generation_tokens) == (2, 6)
    assert generation.arrived_at <= generation.first_token_at <= generation.finished_at
    assert generation.error is None
