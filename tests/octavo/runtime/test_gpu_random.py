"""Small random models on a CUDA device in bfloat16, held to ``transformers`` in float32 by regret, however their steps are cut.

The regret of a token is how far its log-probability lies behind the likeliest one's, in nats, teacher-forced.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from octavo.config import EngineConfig, WeightsFormat
from octavo.engine.messages import EngineRequest
from octavo.runtime.runner import ModelRunner
from octavo.sampling import SamplingParams

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

VOCAB, NEW_TOKENS = 1000, 100
MEAN_REGRET, P99_REGRET = 0.06, 0.20
SHAPE = {
    "vocab_size": VOCAB, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "max_position_embeddings": 4096,
    "initializer_range": 0.08, "eos_token_id": 5, "bos_token_id": 4,
}  # fmt: skip
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama, groups of 4": lambda: LlamaForCausalLM(
        LlamaConfig(**SHAPE, num_attention_heads=8, num_key_value_heads=2, head_dim=128)
    ),
    "qwen2, biases, groups of 7": lambda: Qwen2ForCausalLM(
        Qwen2Config(**{**SHAPE, "hidden_size": 448}, num_attention_heads=7, num_key_value_heads=1)
    ),
    "qwen3, head norms": lambda: Qwen3ForCausalLM(
        Qwen3Config(**SHAPE, num_attention_heads=4, num_key_value_heads=2, head_dim=64, tie_word_embeddings=True)
    ),
}


class Served(NamedTuple):
    """One model twice: served by us on the GPU, and the judge."""

    config: EngineConfig
    runner: ModelRunner
    judge: PreTrainedModel


@pytest.fixture(scope="module", params=MODELS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    torch.manual_seed(1)
    judge = MODELS[request.param]().eval()
    folder = tmp_path_factory.mktemp("random")
    judge.save_pretrained(folder)
    config = EngineConfig(
        name="random", version=1, weights=str(folder), weights_format=WeightsFormat.SAFETENSORS, tokenizer="", device="cuda",
        dtype="bfloat16", max_model_len=2048, max_num_seqs=64, kv_cache_memory_bytes=2**28,
    )  # fmt: skip
    return Served(config, ModelRunner(config), judge.cuda())


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    random = np.random.default_rng(0)
    return [
        random.integers(6, VOCAB, length).tolist() for length in (1, 2, 63, 64, 65, 130, 300, 700, *random.integers(1, 200, 15))
    ]


def regrets(judge: PreTrainedModel, prompts: list[list[int]], answers: list[list[int]]) -> np.ndarray:
    behind = []
    for prompt, answer in zip(prompts, answers, strict=True):
        with torch.inference_mode():
            logits = judge(torch.tensor([[*prompt, *answer]], device="cuda")).logits[0, len(prompt) - 1 : -1].double()
        logprobs = torch.log_softmax(logits, -1)
        chosen = logprobs.gather(1, torch.tensor(answer, device="cuda")[:, None])[:, 0]
        behind.append((logprobs.max(-1).values - chosen).cpu().numpy())
    return np.concatenate(behind)


WAYS = {
    "batched": {},
    "without graphs": {},
    "without running ahead": {},
    "in chunks of 32": {"max_num_batched_tokens": 32},
    "preempted": {"num_pages": 24, "enable_prefix_caching": False, "max_model_len": 1024},
    "alone": {"max_num_seqs": 1, "enable_prefix_caching": False},
    "after a prefix hit": {},
}


@pytest.mark.parametrize("way", WAYS)
def test_greedy_answers_regret_little(
    way: str, served: Served, prompts: list[list[int]], engine_type: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "without graphs":
        monkeypatch.setattr(served.runner, "_graphs", None)
    if way == "without running ahead":
        monkeypatch.setattr(served.runner, "runs_ahead", 0)
    engine = engine_type(served.config, served.runner, **WAYS[way])
    sampling = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True)
    wishes = [EngineRequest(at, prompt, sampling) for at, prompt in enumerate(prompts)]
    answers = engine.run(wishes)
    if way == "after a prefix hit":
        answers = engine.run(wishes)
        assert sum(answer.num_cached_tokens for answer in answers) > 1000
    if way == "preempted":
        assert engine.core.scheduler.stats().preemptions > 0
    regret = regrets(served.judge, prompts, [answer.token_ids for answer in answers])
    assert len(regret) == len(prompts) * NEW_TOKENS
    mean, p99 = regret.mean(), np.quantile(regret, 0.99)
    print(f"\n{way}: mean regret {mean:.4f} nat, p99 {p99:.4f}, tokens not the judge's choice {np.mean(regret > 0):.2%}")
    assert mean <= MEAN_REGRET
    assert p99 <= P99_REGRET
