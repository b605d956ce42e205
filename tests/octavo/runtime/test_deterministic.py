"""``deterministic``: a request's tokens and log-probabilities are the same, bit for bit, alone, in any crowd and in any chunks."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from octavo.config import EngineConfig, WeightsFormat
from octavo.engine.messages import EngineRequest
from octavo.engine.step import KVSpec
from octavo.runtime.runner import ModelRunner
from octavo.sampling import SamplingParams

EXPECTED = Path(__file__).parents[1] / "golden" / "expected.json"
VOCAB = 300
WISHES = [
    {"temperature": 0},
    {"temperature": 1.0, "seed": 5, "top_p": 0.9},
    {"temperature": 0, "repetition_penalty": 1.2, "frequency_penalty": 0.3},
    {"temperature": 1.3, "seed": 6, "min_p": 0.02, "top_k": 40},
    {"temperature": 1.0, "seed": 7},
]
WAYS = {
    "batched": {},
    "in chunks of 7": {"max_num_batched_tokens": 7},
    "in chunks of 37": {"max_num_batched_tokens": 37, "enable_prefix_caching": False},
    "preempted": {"num_pages": 16, "enable_prefix_caching": False},
    "two at a time": {"max_num_seqs": 2, "enable_prefix_caching": False},
    "after a prefix hit": {},
}


def requests(prompts: list[list[int]], max_tokens: int) -> list[EngineRequest]:
    return [
        EngineRequest(at, prompt, SamplingParams(**WISHES[at % len(WISHES)], max_tokens=max_tokens, logprobs=2, ignore_eos=True))
        for at, prompt in enumerate(prompts)
    ]


def hold(config: EngineConfig, runner: ModelRunner, engine_type: type, wishes: list[EngineRequest], ways: dict[str, dict]) -> None:
    """Every way answers, to the last bit, as each request is answered alone."""
    alone = [engine_type(config, runner, enable_prefix_caching=False).run([wish])[0] for wish in wishes]
    for name, limits in ways.items():
        engine = engine_type(config, runner, **limits)
        answers = engine.run(wishes)
        if name == "after a prefix hit":
            answers = engine.run(wishes)
            assert sum(answer.num_cached_tokens for answer in answers) > 0
        if name == "preempted":
            assert engine.core.scheduler.stats().preemptions > 0
        for mine, expected in zip(answers, alone, strict=True):
            assert mine.token_ids == expected.token_ids, name
            assert mine.logprobs == expected.logprobs, name


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def snapshot(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model whose widths are no multiples of anything."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(3)
    config = AutoConfig.for_model(
        request.param, vocab_size=VOCAB, hidden_size=78, intermediate_size=101, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=256, eos_token_id=5, initializer_range=0.3,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp(request.param)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder


def small(snapshot: Path, device: str, dtype: str, page_size: int) -> EngineConfig:
    spec = KVSpec(page_size, num_layers=2, num_kv_heads=2, head_dim=32, dtype_bytes=4)
    return EngineConfig(
        name="small", version=1, weights=str(snapshot), weights_format=WeightsFormat.SAFETENSORS, tokenizer=str(snapshot),
        device=device, dtype=dtype, max_num_seqs=8, block_size=page_size, kv_cache_memory_bytes=100 * spec.bytes_per_page,
        deterministic=True,
    )  # fmt: skip


def random_prompts(lengths: tuple[int, ...]) -> list[list[int]]:
    source = torch.Generator().manual_seed(9)
    return [torch.randint(6, VOCAB, (length,), generator=source).tolist() for length in lengths]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_small_model_on_a_cpu(snapshot: Path, dtype: str, engine_type: type) -> None:
    config = small(snapshot, "cpu", dtype, 16)
    hold(config, ModelRunner(config), engine_type, requests(random_prompts((1, 40, 33, 70, 19, 64)), 40), WAYS)


@pytest.mark.gpu
@pytest.mark.parametrize("page_size", [16, 64])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_small_model_on_a_gpu(snapshot: Path, dtype: str, page_size: int, engine_type: type) -> None:
    config = small(snapshot, "cuda", dtype, page_size)
    ways = {name: limits for name, limits in WAYS.items() if name != "preempted"}
    if page_size == 16:  # of large pages too few are needed
        ways["preempted"] = {"num_pages": 24, "enable_prefix_caching": False}
    hold(config, ModelRunner(config), engine_type, requests(random_prompts((1, 40, 33, 90, 19, 64, 130)), 80), ways)


def demo_prompts(count: int) -> list[list[int]]:
    rows = [row["prompt_token_ids"] for row in json.loads(EXPECTED.read_text(encoding="utf-8"))]
    return sorted(rows, key=len)[:count]


def test_the_demo_model_on_a_cpu(demo_config: Callable, engine_type: type) -> None:
    config = demo_config(device="cpu", deterministic=True)
    ways = {name: WAYS[name] for name in ("batched", "in chunks of 37")}
    hold(config, ModelRunner(config), engine_type, requests(demo_prompts(3), 4), ways)


@pytest.mark.gpu
@pytest.mark.timeout(600)
def test_the_demo_model_on_a_gpu(demo_config: Callable, engine_type: type) -> None:
    config = demo_config(device="cuda", dtype="bfloat16", deterministic=True)
    ways = {name: limits for name, limits in WAYS.items() if name != "in chunks of 7"}
    hold(config, ModelRunner(config), engine_type, requests(demo_prompts(1000), 160), ways)
