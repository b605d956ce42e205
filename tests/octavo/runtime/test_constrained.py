"""Answers that follow grammars, by the real scheduler, runner and grammar processes, with fewer pages than they need."""

import re
import sys
from pathlib import Path

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


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> EngineConfig:
    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    write_snapshot(folder)
    return EngineConfig(
        name="tiny", version=1, weights=str(folder), weights_format=WeightsFormat.SAFETENSORS, tokenizer=str(folder),
        dtype="float32", max_num_seqs=4, enable_prefix_caching=False,
    )  # fmt: skip


def request(number: int, tokenizer: Tokenizer) -> EngineRequest:
    wish = StructuredOutputsParams(regex=PATTERN)
    sampling = SamplingParams(seed=number, max_tokens=100, structured_outputs=wish)
    return EngineRequest(number, tokenizer.encode(f"Request {number}: "), sampling)


def test_who_gave_pages_back_goes_on_where_the_grammar_was(config: EngineConfig, engine_type: type) -> None:
    tokenizer, runner = load_tokenizer(config.tokenizer), ModelRunner(config)
    requests = [request(number, tokenizer) for number in range(4)]
    engine = engine_type(config, runner, num_pages=9)
    answers = engine.run(requests)
    assert engine.core.scheduler.stats().preemptions > 0
    for answer in answers:
        assert answer.finish is FinishReason.STOP
        assert answer.token_ids[-1] == EOS
        assert re.fullmatch(PATTERN, tokenizer.decode(answer.token_ids[:-1]))
