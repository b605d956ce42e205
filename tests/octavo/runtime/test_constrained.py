"""Answers that follow grammars, by the real scheduler, runner and grammar processes, with fewer pages than they need."""

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

from tiny import EOS, write_snapshot

from octavo.config import EngineConfig, WeightsFormat
from octavo.engine.messages import EngineRequest, FinishReason
from octavo.runtime.runner import ModelRunner
from octavo.sampling import SamplingParams
from octavo.structured_outputs import StructuredOutputsParams
from octavo.text.tokenizer import Tokenizer, load_tokenizer

# What comes is not what came before, so a place that was lost or repeated shows.
PATTERN = "<" + "".join(f"[{digit}a]" for digit in "0123456789") * 6 + ">"
WISH = StructuredOutputsParams(regex=PATTERN)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> EngineConfig:
    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    write_snapshot(folder)
    return EngineConfig(
        name="tiny", version=1, weights=str(folder), weights_format=WeightsFormat.SAFETENSORS, tokenizer=str(folder),
        dtype="float32", max_num_seqs=4, enable_prefix_caching=False,
    )  # fmt: skip


def request(number: int, tokenizer: Tokenizer, pattern: str = PATTERN) -> EngineRequest:
    wish = StructuredOutputsParams(regex=pattern)
    sampling = SamplingParams(seed=number, max_tokens=100, structured_outputs=wish)
    return EngineRequest(number, tokenizer.encode(f"Request {number}: "), sampling)


def check(answer: Any, tokenizer: Tokenizer) -> None:
    assert answer.finish is FinishReason.STOP
    assert answer.token_ids[-1] == EOS
    assert re.fullmatch(PATTERN, tokenizer.decode(answer.token_ids[:-1]))


@pytest.mark.parametrize("runs_ahead", [0, 1])
def test_who_gave_pages_back_goes_on_where_the_grammar_was(config: EngineConfig, engine_type: type, runs_ahead: int) -> None:
    tokenizer, runner = load_tokenizer(config.tokenizer), ModelRunner(config)
    runner.runs_ahead = runs_ahead
    requests = [request(number, tokenizer) for number in range(4)]
    engine = engine_type(config, runner, num_pages=9)
    answers = engine.run(requests)
    assert engine.core.scheduler.stats().preemptions > 0
    for answer in answers:
        check(answer, tokenizer)


@pytest.mark.parametrize("runs_ahead", [0, 1])
def test_nobody_waits_for_a_grammar_whose_process_does_nothing(config: EngineConfig, engine_type: type, runs_ahead: int) -> None:
    """Others are served to their end meanwhile; when it goes on, so does its answer."""
    tokenizer, runner = load_tokenizer(config.tokenizer), ModelRunner(config)
    runner.runs_ahead = runs_ahead
    engine, others = engine_type(config, runner), grammar_processes()
    penalised = SamplingParams(seed=3, max_tokens=100, structured_outputs=WISH, frequency_penalty=0.5)
    prompt = tokenizer.encode("Say: ")
    (alone,) = engine.run([EngineRequest(1, prompt, penalised)])
    free = SamplingParams(seed=1, max_tokens=200, ignore_eos=True)
    held, whole = engine.submit([EngineRequest(2, prompt, penalised), EngineRequest(3, prompt, free)])
    while len(held.token_ids) < 5:
        engine.step()
    (process,) = grammar_processes() - others
    process.suspend()
    try:
        while whole.finish is None:
            engine.step()
        assert held.finish is None
    finally:
        process.resume()
    while held.finish is None:
        engine.step()
    check(held, tokenizer)
    assert held.token_ids == alone.token_ids
    assert engine.core.scheduler.stats().preemptions > 0


def test_whoever_gives_up_a_grammar_whose_process_does_nothing_holds_up_nobody(config: EngineConfig, engine_type: type) -> None:
    """More of them come than a socket holds messages for."""
    tokenizer = load_tokenizer(config.tokenizer)
    engine, others = engine_type(config, ModelRunner(config)), grammar_processes()
    engine.run([request(0, tokenizer)])
    (process,) = grammar_processes() - others
    process.suspend()
    try:
        for number in range(1, 400):
            (answer,) = engine.submit([request(number, tokenizer)])
            while not answer.token_ids:
                engine.step()
            engine.abort(number)
    finally:
        process.resume()
    (answer,) = engine.run([request(400, tokenizer)])
    check(answer, tokenizer)


def test_grammars_that_are_given_up_before_they_begin_hold_up_nobody(config: EngineConfig, engine_type: type) -> None:
    """The helper does nothing, and more of them come than its socket holds messages for."""
    tokenizer = load_tokenizer(config.tokenizer)
    engine, others = engine_type(config, ModelRunner(config)), grammar_processes()
    engine.run([request(0, tokenizer)])
    (process,) = grammar_processes() - others
    helper = process.parent()
    helper.suspend()
    try:
        for number in range(1, 400):
            engine.submit([request(number, tokenizer, f"[a-z]{{{number}}}")])
            engine.abort(number)
        (waiting,) = engine.submit([request(400, tokenizer, "xyz")])
        engine.step()
    finally:
        helper.resume()
    while waiting.finish is None:
        engine.step()
    assert tokenizer.decode(waiting.token_ids[:-1]) == "xyz"


@pytest.mark.gpu
@pytest.mark.timeout(600)
def test_masks_reach_a_gpu_beside_its_forward_pass(demo_config: Callable, engine_type: type) -> None:
    config = demo_config(device="cuda", dtype="bfloat16", max_num_seqs=16)
    tokenizer, runner = load_tokenizer(config.tokenizer), ModelRunner(config)
    free = SamplingParams(seed=1, max_tokens=80, ignore_eos=True)
    prompt = tokenizer.encode("Free: ")
    others = [EngineRequest(100, prompt, free), EngineRequest(101, prompt, free, bad_words=[prompt[:1], prompt[:2]])]
    answers = engine_type(config, runner).run([*others, *(request(number, tokenizer) for number in range(14))])
    assert prompt[0] not in answers[1].token_ids
    for answer in answers[2:]:
        assert answer.finish is FinishReason.STOP
        assert re.fullmatch(PATTERN, tokenizer.decode(answer.token_ids[:-1]))


def grammar_processes() -> set[psutil.Process]:
    """Those that follow one, without their helpers."""
    return {process for process in psutil.Process().children(recursive=True) if follows(process)}


def follows(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        parent = process.parent()
        return parent is not None and process.name() == parent.name() == "octavo-grammar"
    return False
