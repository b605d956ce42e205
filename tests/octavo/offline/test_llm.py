"""``LLM`` under vLLM's names: prompts of every form, outputs of vLLM's shape, errors that cost nobody else anything."""

import asyncio
import string
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from octavo import LLM, RequestOutput, SamplingParams
from octavo.errors import InvalidRequest, LoadFailed, Unsupported

GREEDY = SamplingParams(temperature=0, max_tokens=4)
HELLO = {"role": "user", "content": "Hello"}
HELLO_TEXT = "<user>Hello</user><assistant>"


@pytest.fixture
def quiet(llm: LLM) -> Callable[..., list[RequestOutput]]:
    def generate(prompts: object, sampling: object = GREEDY, **rest: object) -> list[RequestOutput]:
        return llm.generate(prompts, sampling, use_tqdm=False, **rest)

    return generate


def test_outputs_have_vllms_shape(quiet: Callable) -> None:
    first, second = quiet(["One", "Two"], SamplingParams(temperature=0, max_tokens=5))
    assert (first.prompt, second.prompt) == ("One", "Two")
    assert int(second.request_id) == int(first.request_id) + 1
    assert (len(first.prompt_token_ids), first.finished, first.prompt_logprobs, first.num_cached_tokens) == (3, True, None, 0)
    (answer,) = first.outputs
    assert (answer.index, len(answer.token_ids), answer.finish_reason, answer.stop_reason) == (0, 5, "length", None)
    assert (answer.logprobs, answer.cumulative_logprob, answer.finished()) == (None, None, True)
    metrics = first.metrics
    assert metrics.num_generation_tokens == 5
    assert metrics.queued_ts <= metrics.scheduled_ts <= metrics.first_token_ts <= metrics.last_token_ts


def test_every_form_of_a_prompt_is_the_same_prompt(quiet: Callable, llm: LLM) -> None:
    ids = llm.get_tokenizer().encode("Same")
    forms = [
        "Same",
        {"prompt": "Same"},
        {"prompt_token_ids": ids, "prompt": "Same"},
        {"prompt_token_ids": ids, "multi_modal_data": None},
        ids,
        np.array(ids),
    ]
    outputs = quiet(forms)
    assert len({tuple(output.outputs[0].token_ids) for output in outputs}) == 1
    assert [output.prompt for output in outputs] == ["Same"] * 3 + [None] * 3
    (single,) = quiet(ids)
    assert single.outputs[0].token_ids == outputs[0].outputs[0].token_ids


def test_bad_words_are_not_written(quiet: Callable) -> None:
    """A word of two tokens is wanting only where it would have stood; its neighbours in the batch are as they were."""
    greedy = {"temperature": 0, "max_tokens": 60}
    free = quiet("Hello", SamplingParams(**greedy))[0].outputs[0].text
    at = next(at for at in range(len(free) - 1) if free[at : at + 2].isascii() and free.index(free[at : at + 2]) == at)
    word = free[at : at + 2]
    ways = [SamplingParams(**greedy), SamplingParams(**greedy, bad_words=[word, "never there"])]
    same, other = (output.outputs[0].text for output in quiet(["Hello"] * 2, ways))
    assert same == free
    assert word not in other
    assert other[: at + 1] == free[: at + 1]
    drawn = quiet("Hello", SamplingParams(n=3, seed=1, max_tokens=200, bad_words=[*string.ascii_letters]))[0].outputs
    assert not {*string.ascii_letters} & {*"".join(sample.text for sample in drawn)}


def test_prefixes_are_cached_by_salt(quiet: Callable) -> None:
    prompt = {"prompt": "A prefix that fills two pages of the cache", "cache_salt": "a"}
    assert [quiet(prompt)[0].num_cached_tokens for _ in range(2)] == [0, 32]
    assert quiet(prompt | {"cache_salt": "b"})[0].num_cached_tokens == 0


def test_samples_and_log_probabilities(quiet: Callable) -> None:
    (output,) = quiet("Hi", SamplingParams(n=3, seed=1, max_tokens=4, logprobs=2, prompt_logprobs=1))
    assert [answer.index for answer in output.outputs] == [0, 1, 2]
    assert len({tuple(answer.token_ids) for answer in output.outputs}) == 3
    for answer in output.outputs:
        chosen = [entries[token_id] for token_id, entries in zip(answer.token_ids, answer.logprobs, strict=True)]
        assert answer.cumulative_logprob == pytest.approx(sum(entry.logprob for entry in chosen))
        assert all({1, 2} <= {entry.rank for entry in entries.values()} for entries in answer.logprobs)
        assert all(isinstance(entry.decoded_token, str) for entry in chosen)
    nothing, scored = output.prompt_logprobs
    assert nothing is None
    assert output.prompt_token_ids[1] in scored


def test_one_sampling_for_each_prompt(quiet: Callable) -> None:
    outputs = quiet(["a", "b"], [SamplingParams(max_tokens=1), SamplingParams(max_tokens=3, ignore_eos=True)])
    assert [len(output.outputs[0].token_ids) for output in outputs] == [1, 3]
    answer = quiet("a", None)[0].outputs[0]
    assert len(answer.token_ids) == 16 or answer.finish_reason == "stop"


def test_stop_strings_end_an_answer(quiet: Callable) -> None:
    whole = quiet("Stop", SamplingParams(temperature=0, max_tokens=32))[0].outputs[0].text
    stop = whole[5]
    answer = quiet("Stop", SamplingParams(temperature=0, max_tokens=32, stop=stop))[0].outputs[0]
    assert (answer.text, answer.finish_reason, answer.stop_reason) == (whole[: whole.index(stop)], "stop", stop)


def test_the_most_urgent_prompt_goes_first(quiet: Callable) -> None:
    outputs = quiet([f"prompt {i}" for i in range(100)], priority=range(100, 0, -1))
    first_tokens = [output.metrics.first_token_ts for output in reversed(outputs)]
    many = 16  # more than start in one step, of which any may be told of first
    assert all(sooner <= later for sooner, later in zip(first_tokens, first_tokens[many:], strict=False))
    assert len(quiet(["urgent", "not"], priority=[False, True])) == 2


def test_more_prompts_than_a_server_would_let_wait(quiet: Callable) -> None:
    assert len(quiet([[i % 256] for i in range(1100)], SamplingParams(max_tokens=1))) == 1100


@pytest.mark.parametrize(
    ("prompts", "sampling", "kind", "says"),
    [
        (["fine", ""], GREEDY, InvalidRequest, "at least one token"),
        (["fine", [1, 9999]], GREEDY, InvalidRequest, "between 0 and 259"),
        (["fine", "x" * 3000], GREEDY, InvalidRequest, "3000 tokens"),
        (["fine", "x" * 9000], GREEDY, InvalidRequest, "9000 tokens"),
        (["fine", {"prompt": "x", "cache_salt": "\ud800"}], GREEDY, InvalidRequest, "valid Unicode text"),
        (["fine", 7.5], GREEDY, InvalidRequest, "a string, a list of token ids or a mapping, got float"),
        (["fine", ["x"]], GREEDY, InvalidRequest, "must be a list of integers"),
        ([{"prompt_embeds": [1.0]}], GREEDY, Unsupported, "'prompt_embeds'"),
        ([{"cache_salt": "x"}], GREEDY, InvalidRequest, "must have prompt, a string, or prompt_token_ids"),
        (["a", "b"], [GREEDY], InvalidRequest, "one for each of the 2 prompts, got 1"),
        (["a"], {"temperature": 0}, InvalidRequest, "sampling_params must be one SamplingParams"),
        (["a"], SamplingParams(max_tokens=2.5), InvalidRequest, r"Expected `int \| null`, got `float` - at `\$.max_tokens`"),
        (["a"], SamplingParams(logprobs=21), InvalidRequest, "logprobs must be at most 20"),
    ],
)
def test_what_is_wrong_is_said_and_costs_nothing(quiet: Callable, prompts: object, sampling: object, kind: type, says: str) -> None:
    with pytest.raises(kind, match=says):
        quiet(prompts, sampling)
    assert len(quiet("after")) == 1


def test_a_refused_prompt_is_a_value_error(quiet: Callable) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        quiet("")


def test_a_field_that_was_set_is_checked(quiet: Callable) -> None:
    params = SamplingParams(temperature=0)
    params.max_tokens = 2
    assert len(quiet("a", params)[0].outputs[0].token_ids) == 2
    params.max_tokens = -1
    with pytest.raises(ValueError, match="max_tokens"):
        quiet("a", params)


def test_chat_spells_messages_as_the_model_wants_them(llm: LLM) -> None:
    (output,) = llm.chat([HELLO], GREEDY, use_tqdm=False)
    assert output.prompt == HELLO_TEXT
    assert output.prompt_token_ids == llm.get_tokenizer().encode(HELLO_TEXT)
    assert output.prompt == llm.get_tokenizer().apply_chat_template([HELLO], tokenize=False, add_generation_prompt=True)
    parts = {"role": "user", "content": [{"type": "text", "text": "Hello"}]}
    outputs = llm.chat([[HELLO], [parts], [HELLO, {"role": "assistant", "content": "Hi"}, HELLO]], GREEDY, use_tqdm=False)
    assert [one.prompt for one in outputs] == [HELLO_TEXT] * 2 + [f"<user>Hello</user><assistant>Hi</assistant>{HELLO_TEXT}"]


def test_chat_continues_and_takes_templates(llm: LLM) -> None:
    begun = [HELLO, {"role": "assistant", "content": "I am"}]
    (output,) = llm.chat(begun, GREEDY, use_tqdm=False, add_generation_prompt=False, continue_final_message=True)
    assert output.prompt == "<user>Hello</user><assistant>I am"
    own = "{{ messages[0].content }}|{{ tools[0].name }}|{{ mood }}"
    told = {"tools": [{"name": "clock"}], "chat_template_kwargs": {"mood": "glad"}}
    (output,) = llm.chat([HELLO], GREEDY, use_tqdm=False, chat_template=own, **told)
    assert output.prompt == "Hello|clock|glad"


@pytest.mark.parametrize(
    ("messages", "arguments", "kind", "says"),
    [
        ([], {}, InvalidRequest, "messages must be a list of messages"),
        ("Hello", {}, InvalidRequest, "messages must be a list of messages"),
        ([{"role": "wizard", "content": "x"}], {}, InvalidRequest, "No role is called wizard"),
        ([HELLO], {"continue_final_message": True}, InvalidRequest, "add_generation_prompt to be false"),
        ([HELLO], {"lora_request": object()}, Unsupported, "'lora_request' is not supported"),
        ([HELLO], {"chat_template_content_format": "openai"}, Unsupported, "chat_template_content_format"),
    ],
)
def test_chats_that_cannot_be(llm: LLM, messages: object, arguments: dict, kind: type, says: str) -> None:
    with pytest.raises(kind, match=says):
        llm.chat(messages, GREEDY, use_tqdm=False, **arguments)


def test_encode_is_refused(llm: LLM) -> None:
    with pytest.raises(Unsupported, match="pooling model"):
        llm.encode("text")


def test_the_bar_counts_prompts_and_tokens(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    from tqdm import tqdm

    bars: list[tqdm] = []

    def bar(**arguments: object) -> tqdm:
        bars.append(tqdm(**arguments))
        return bars[-1]

    llm.generate(["a", "b"], GREEDY, use_tqdm=bar)
    assert (bars[0].n, bars[0].total) == (2, 2)
    assert "Processed prompts: 100%" in (shown := capsys.readouterr().err)
    assert "est. speed input:" in shown
    llm.generate("a", GREEDY, use_tqdm=False)
    assert capsys.readouterr().err == ""


def test_from_a_running_event_loop_and_from_several_threads(quiet: Callable) -> None:
    async def cell() -> list[RequestOutput]:
        return quiet("cell")

    expected = quiet("cell")[0].outputs
    assert asyncio.run(cell())[0].outputs == expected
    with ThreadPoolExecutor(4) as pool:
        assert [outputs[0].outputs for outputs in pool.map(quiet, ["cell"] * 8)] == [expected] * 8


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"tensor_parallel_size": 2}, r"^LLM\(\) sets 'tensor_parallel_size', which is not supported"),
        ({"max_model_len": 10**6}, "1000000"),
        ({"tokenizer": "."}, "tokenizer.json"),
    ],
)
def test_a_model_that_cannot_be_loaded(snapshot: Path, arguments: dict, says: str) -> None:
    with pytest.raises(LoadFailed, match=says):
        LLM(snapshot, **arguments)


@pytest.mark.long
def test_the_example_of_the_guide(demo_gguf: Path) -> None:
    prompts = ["你好，请介绍一下你自己。", "人工智能的未来是", "中国的首都是"]
    sampling_params = SamplingParams(temperature=0.7, top_p=0.95, max_tokens=100)
    llm = LLM(model=demo_gguf)
    outputs = llm.generate(prompts, sampling_params)
    assert [output.prompt for output in outputs] == prompts
    assert all(output.outputs[0].text for output in outputs)
    llm.close()
