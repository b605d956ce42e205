"""The demo model on a CUDA device in bfloat16, held to float32 on the CPU by regret, and to our own kernels by a profile.

The regret of a token is how far its log-probability lies behind the likeliest one's: 0 if both devices would choose it.
"""

import importlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from octavo.config import EngineConfig
from octavo.engine.messages import EngineRequest
from octavo.engine.step import Masks, RowStart
from octavo.runtime.rows import SamplingTable
from octavo.runtime.runner import ModelRunner
from octavo.sampling import SamplingParams
from octavo_kernels import Kernels

from .test_sampler import draw, make_sampler

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

EXPECTED = Path(__file__).parents[1] / "golden" / "expected.json"
NEW_TOKENS = 160
MEAN_REGRET, P99_REGRET = 0.06, 0.20


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    return [row["prompt_token_ids"] for row in json.loads(EXPECTED.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def gpu_config(demo_config: Callable) -> EngineConfig:
    return demo_config(device="cuda", dtype="bfloat16")


@pytest.fixture(scope="module")
def runner(gpu_config: EngineConfig) -> ModelRunner:
    return ModelRunner(gpu_config)


@pytest.fixture
def engine(gpu_config: EngineConfig, runner: ModelRunner, engine_type: type) -> Callable:
    return lambda **limits: engine_type(gpu_config, runner, **limits)


def greedy(prompts: Iterable[list[int]]) -> list[EngineRequest]:
    sampling = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True)
    return [EngineRequest(at, prompt, sampling) for at, prompt in enumerate(prompts)]


WAYS = {
    "batched": {},
    "in chunks of 32": {"max_num_batched_tokens": 32},
    "preempted": {"num_pages": 16, "enable_prefix_caching": False},
    "alone": {"max_num_seqs": 1, "enable_prefix_caching": False},
    "after a prefix hit": {},
}


@pytest.mark.parametrize("way", WAYS)
def test_greedy_answers_regret_little(way: str, engine: Callable, prompts: list[list[int]], regrets: Callable) -> None:
    device = engine(**WAYS[way])
    answers = device.run(greedy(prompts))
    if way == "after a prefix hit":
        answers = device.run(greedy(prompts))
        assert sum(answer.num_cached_tokens for answer in answers) > 1000
    if way == "preempted":
        assert device.core.scheduler.stats().preemptions > 0
    regret = regrets(prompts, [answer.token_ids for answer in answers])
    assert len(regret) == len(prompts) * NEW_TOKENS
    mean, p99 = regret.mean(), np.quantile(regret, 0.99)
    print(f"\n{way}: mean regret {mean:.4f} nat, p99 {p99:.4f}, tokens not the CPU's choice {np.mean(regret > 0):.2%}")
    assert mean <= MEAN_REGRET
    assert p99 <= P99_REGRET


# Operations whose kernels lie in other files than their launcher, or for some shapes do.
PARTS = {
    "linear": ["gemv", "skinny", "gated"],
    "paged_decode": ["paged_decode", "paged_decode_hopper"],
    "paged_prefill": ["paged_prefill", "paged_prefill_hopper"],
    "sample": ["sample_scan", "sample_settle", "sample_spread", "sample_finish"],
}


def test_every_kernel_of_ours_runs_and_no_other_attention(engine: Callable, prompts: list[list[int]]) -> None:
    import triton

    from octavo_kernels.hopper import is_hopper

    requests = greedy(prompts[:8])
    requests[0] = EngineRequest(0, prompts[0], SamplingParams(temperature=0, max_tokens=NEW_TOKENS, repetition_penalty=1.1))
    requests[1] = EngineRequest(1, prompts[1], requests[1].sampling, bad_words=[[5]])  # its steps have masks
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        engine(max_num_batched_tokens=512, enable_prefix_caching=False).run(requests)
        torch.cuda.synchronize()
    ran = {event.key for event in profile.key_averages()}
    print("\n" + profile.key_averages().table(sort_by="cuda_time_total", row_limit=25, max_name_column_width=60))
    elsewhere = set() if is_hopper(torch.device("cuda")) else {"plan_prefill"}  # only Hopper's kernel goes by a plan
    for name in set(Kernels._fields) - elsewhere:
        modules = [importlib.import_module(f"octavo_kernels.{part}") for part in PARTS.get(name, [name])]
        ours = {
            value.__name__
            for module in modules
            for value in vars(module).values()
            if isinstance(value, triton.JITFunction) and value.__module__ == module.__name__
        }
        assert ours & ran, f"no kernel of {name} ran"
    assert not [key for key in ran if any(word in key.lower() for word in ("flash", "fmha", "softmax", "attention"))]


def test_the_cache_takes_what_was_granted(gpu_config: EngineConfig, runner: ModelRunner) -> None:
    free, total = torch.cuda.mem_get_info()
    cache = runner.num_pages * runner.kv_spec.bytes_per_page
    assert runner.info.page_size == 64
    assert 0.75 * total < cache < 0.9 * total
    assert free > 0.05 * total


WISHES = [
    SamplingParams(temperature=0),
    SamplingParams(temperature=0, repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.25, logprobs=3),
    SamplingParams(temperature=1.0, top_p=0.9, logit_bias={5: 4.0, 8: -3.0}, logprobs=0),
    SamplingParams(temperature=0.7, top_k=7, min_tokens=30, max_tokens=40, stop_token_ids=(3, 4)),
    SamplingParams(temperature=1.4, min_p=0.05, logprobs=5),
]


def test_the_sampler_draws_what_it_draws_on_a_cpu() -> None:
    """The same options, noise, masks and edits on both; the logits leave no ties, so the tokens are equal too."""
    vocab, steps = 5000, 12
    random = np.random.default_rng(4)
    board = random.integers(-(2**31), 2**31, (70, -(-vocab // 32)), np.int64).astype(np.int32)
    tables = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        rows = SamplingTable(len(WISHES), vocab)
        tables.append((device, rows, make_sampler(rows, len(WISHES), vocab, device)))
        for row, sampling in enumerate(WISHES):
            tables[-1][2].start(RowStart(row, np.arange(20, dtype=np.int32), 20, sampling, 0, 1000 + row, (7,), False))
    order = np.arange(len(WISHES))
    for step in range(steps):
        logits = torch.randn(len(WISHES), vocab, generator=torch.Generator().manual_seed(step)) * 3
        positions = np.full(len(WISHES), 20 + step)
        places = random.choice(len(board), 3, replace=False).tolist()
        masks = Masks(dict(zip((1, 3, 4), places, strict=True)), board if step % 5 else board.copy())
        edited, results = [], []
        for device, rows, sampler in tables:
            edited.append(logits.to(device, copy=True))
            results.append(draw(rows, sampler, edited[-1], order, positions, masks))
        (tokens, logprobs), (gpu_tokens, gpu_logprobs) = results
        torch.testing.assert_close(edited[1].cpu(), edited[0], rtol=1e-6, atol=1e-5)
        assert gpu_tokens == tokens
        assert gpu_logprobs.keys() == logprobs.keys()
        for at, entry in logprobs.items():
            assert gpu_logprobs[at].token_ids == entry.token_ids
            assert gpu_logprobs[at].ranks == entry.ranks
            assert gpu_logprobs[at].logprobs == pytest.approx(entry.logprobs, abs=1e-4)
