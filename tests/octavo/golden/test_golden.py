"""Greedy answers of the demo model in float32 equal transformers' token for token, however the engine comes to them."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from octavo.config import EngineConfig, WeightsFormat
from octavo.engine.messages import EngineRequest
from octavo.runtime.runner import ModelRunner
from octavo.sampling import SamplingParams

HERE = Path(__file__).parent
PAGE = 16


class Golden(NamedTuple):
    """A prompt and what follows it."""

    prompt: list[int]
    answer: list[int]


@pytest.fixture(scope="module")
def config(demo_gguf: Path) -> EngineConfig:
    return EngineConfig(
        name="demo", version=1, weights=str(demo_gguf), weights_format=WeightsFormat.GGUF, tokenizer=str(demo_gguf),
        dtype="float32", max_model_len=1024, block_size=PAGE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def runner(config: EngineConfig) -> ModelRunner:
    return ModelRunner(config)


@pytest.fixture
def engine(config: EngineConfig, runner: ModelRunner, engine_type: type) -> Callable:
    return lambda **limits: engine_type(config, runner, **limits)


@pytest.fixture(
    params=[
        pytest.param((6, 32), id="6x32"),
        pytest.param((20, 64), id="20x64", marks=[pytest.mark.long, pytest.mark.timeout(900)]),
    ]
)
def golden(request: pytest.FixtureRequest) -> list[Golden]:
    prompts, tokens = request.param
    rows = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))[:prompts]
    return [Golden(row["prompt_token_ids"], row["token_ids"][:tokens]) for row in rows]


def requests(golden: list[Golden]) -> Iterator[EngineRequest]:
    for number, (prompt, answer) in enumerate(golden):
        sampling = SamplingParams(temperature=0, max_tokens=len(answer), ignore_eos=True)
        yield EngineRequest(id=number, prompt_token_ids=prompt, sampling=sampling)


def answers(golden: list[Golden]) -> list[list[int]]:
    return [one.answer for one in golden]


def test_alone(engine: Callable, golden: list[Golden]) -> None:
    alone = engine(enable_prefix_caching=False)
    assert [alone.run([request])[0].token_ids for request in requests(golden)] == answers(golden)


def test_batched(engine: Callable, golden: list[Golden]) -> None:
    together = engine()
    assert [answer.token_ids for answer in together.run(list(requests(golden)))] == answers(golden)
    assert together.core.scheduler.stats().steps < 2 * len(golden[0].answer)


def test_prefill_in_chunks_of_32_tokens(engine: Callable, golden: list[Golden]) -> None:
    """Chunks of long prompts share steps with the others' decodes."""
    chunked = engine(max_num_batched_tokens=32)
    assert [answer.token_ids for answer in chunked.run(list(requests(golden)))] == answers(golden)
    assert chunked.core.scheduler.stats().steps > sum(len(one.prompt) for one in golden) // 32


def test_after_a_prefix_hit(engine: Callable, golden: list[Golden]) -> None:
    """The second time, all full pages of each prompt but for its last token are found, and nothing else changes."""
    again = engine()
    again.run(list(requests([one._replace(answer=one.answer[:1]) for one in golden])))
    second = again.run(list(requests(golden)))
    assert [answer.token_ids for answer in second] == answers(golden)
    cached = [answer.num_cached_tokens for answer in second]
    assert cached == [(len(one.prompt) - 1) // PAGE * PAGE for one in golden]
    assert max(cached) >= 300


def test_after_a_forced_preemption(engine: Callable, golden: list[Golden]) -> None:
    """The pool holds the longest request and little more, so others are pushed out half way and start over."""
    longest = max(len(one.prompt) + len(one.answer) for one in golden)
    tight = engine(num_pages=-(-longest // PAGE) + 6, enable_prefix_caching=False)
    assert [answer.token_ids for answer in tight.run(list(requests(golden)))] == answers(golden)
    assert tight.core.scheduler.stats().preemptions > 0


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_expected_answers_are_transformers_own(demo_gguf: Path) -> None:
    command = [sys.executable, str(HERE / "make_expected.py"), str(demo_gguf), "--check"]
    assert subprocess.run(command, check=False).returncode == 0
