"""The runner under the real scheduler, with a small random model that transformers made and transformers checks."""

from collections.abc import Callable

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from octavo.config import EngineConfig, WeightsFormat
from octavo.engine.messages import EngineRequest, FinishReason, TokenLogprobs
from octavo.engine.step import KVSpec
from octavo.errors import LoadFailed
from octavo.runtime import logprobs
from octavo.runtime.runner import ModelRunner
from octavo.sampling import SamplingParams

VOCAB, EOS, PAGES = 300, 5, 48


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, eos_token_id=EOS, initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def config(model: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> EngineConfig:
    folder = tmp_path_factory.mktemp("small")
    model.save_pretrained(folder)
    spec = KVSpec(page_size=16, num_layers=2, num_kv_heads=2, head_dim=16, dtype_bytes=4)
    return EngineConfig(
        name="small", version=1, weights=str(folder), weights_format=WeightsFormat.SAFETENSORS, tokenizer=str(folder),
        dtype="float32", max_num_seqs=8, kv_cache_memory_bytes=PAGES * spec.bytes_per_page,
    )  # fmt: skip


@pytest.fixture(scope="module")
def runner(config: EngineConfig) -> ModelRunner:
    return ModelRunner(config)


@pytest.fixture
def engine(config: EngineConfig, runner: ModelRunner, engine_type: type) -> Callable:
    return lambda **limits: engine_type(config, runner, **limits)


def request(number: int, length: int, sample_index: int = 0, **sampling: object) -> EngineRequest:
    prompt = torch.randint(6, VOCAB, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    return EngineRequest(id=number, prompt_token_ids=prompt, sampling=SamplingParams(**sampling), sample_index=sample_index)


def raw_logprobs(model: LlamaForCausalLM, token_ids: list[int]) -> torch.Tensor:
    """Row p: the distribution of the token at p + 1."""
    with torch.inference_mode():
        return torch.log_softmax(model(torch.tensor([token_ids])).logits[0].double(), -1)


def check(entry: TokenLogprobs, token: int, rivals: int, expected: torch.Tensor) -> None:
    assert entry.token_ids[0] == token
    assert entry.token_ids[1:] == expected.topk(rivals).indices.tolist()
    assert entry.logprobs == pytest.approx(expected[entry.token_ids].tolist(), abs=1e-4)
    assert entry.ranks == [int((expected > expected[token]).sum()) + 1, *range(1, rivals + 1)]


def test_it_says_what_it_holds(runner: ModelRunner, model: LlamaForCausalLM) -> None:
    info = runner.info
    assert (info.max_model_len, info.vocab_size, info.page_size, info.num_pages) == (256, VOCAB, 16, PAGES)
    assert (info.dtype, info.eos_token_ids, info.max_logprobs) == ("float32", [EOS], 20)
    assert info.weights_bytes == sum(weight.nbytes for weight in model.parameters())
    assert runner.kv_spec.bytes_per_page * runner.num_pages == PAGES * 16 * 2 * 2 * 2 * 16 * 4


def test_a_cache_too_small_for_one_request_is_refused(config: EngineConfig) -> None:
    with pytest.raises(LoadFailed, match="holds 240 tokens, but one request of max_model_len 256 needs"):
        ModelRunner(
            EngineConfig(
                **{name: getattr(config, name) for name in config.__struct_fields__} | {"kv_cache_memory_bytes": 15 * 8192}
            )
        )


@pytest.mark.parametrize("budget", [2048, 32])
def test_logprobs_of_prompt_and_answer_are_transformers_own(
    engine: Callable, model: LlamaForCausalLM, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the prompt is scored in chunks, and each chunk in slices of 7 tokens."""
    monkeypatch.setattr(logprobs, "SLICE_BYTES", 7 * 4 * VOCAB)
    asked = [
        request(0, 90, temperature=0, max_tokens=8, prompt_logprobs=3, logprobs=2, ignore_eos=True),
        request(1, 50, temperature=0, max_tokens=8, ignore_eos=True),
        request(2, 70, temperature=0.8, seed=1, max_tokens=8, prompt_logprobs=0, logprobs=0, ignore_eos=True, presence_penalty=1.5),
    ]
    scored, plain, sampled = engine(max_num_batched_tokens=budget).run(asked)
    assert plain.prompt_logprobs is None
    assert plain.logprobs == []
    for answer, wish, rivals in ((scored, asked[0], (3, 2)), (sampled, asked[2], (0, 0))):
        prompt = wish.prompt_token_ids
        expected = raw_logprobs(model, [*prompt, *answer.token_ids])
        assert answer.prompt_logprobs is not None
        assert answer.prompt_logprobs[0] is None
        assert len(answer.prompt_logprobs) == len(prompt)
        assert len(answer.logprobs) == 8
        for at, entry in enumerate([*answer.prompt_logprobs[1:], *answer.logprobs], 1):
            token = [*prompt, *answer.token_ids][at]
            check(entry, token, rivals[at >= len(prompt)], expected[at - 1])


@pytest.mark.parametrize("budget", [2048, 32])
def test_a_prompt_is_forgotten_once_it_is_scored(engine: Callable, runner: ModelRunner, budget: int) -> None:
    """No later step may look for prompts to score."""
    for length in (1, 2, 33, 90):
        engine(max_num_batched_tokens=budget).run([request(0, length, temperature=0, max_tokens=2, prompt_logprobs=0)])
        assert not runner._steps.table.prompts


def test_prompt_logprobs_survive_a_preemption(config: EngineConfig, runner: ModelRunner, engine_type: type) -> None:
    wishes = [request(at, 60 + at, temperature=0, max_tokens=60, prompt_logprobs=1, ignore_eos=True) for at in range(4)]
    roomy, tight = engine_type(config, runner), engine_type(config, runner, num_pages=22)
    expected, got = roomy.run(wishes), tight.run(wishes)
    assert tight.core.scheduler.stats().preemptions > 0
    for one, other in zip(expected, got, strict=True):
        assert [entry and entry.token_ids for entry in one.prompt_logprobs] == [
            entry and entry.token_ids for entry in other.prompt_logprobs
        ]


SEEDED = {"temperature": 1.0, "top_p": 0.95, "seed": 77, "max_tokens": 60, "ignore_eos": True, "frequency_penalty": 0.2}


def test_a_seeded_request_answers_the_same_alone_in_a_crowd_and_after_a_preemption(
    config: EngineConfig, runner: ModelRunner, engine_type: type
) -> None:
    (alone,) = engine_type(config, runner).run([request(0, 40, **SEEDED)])
    others = [request(at, 30 + 9 * at, temperature=1.3, seed=at, max_tokens=70, ignore_eos=True) for at in range(1, 6)]
    crowd = engine_type(config, runner, max_num_batched_tokens=48).run([*others, request(0, 40, **SEEDED)])
    assert crowd[-1].token_ids == alone.token_ids
    tight = engine_type(config, runner, num_pages=20)
    assert tight.run([*others, request(0, 40, **SEEDED)])[-1].token_ids == alone.token_ids
    assert tight.core.scheduler.stats().preemptions > 0
    assert len(set(alone.token_ids)) > 10


def test_samples_of_one_request_differ(engine: Callable) -> None:
    samples = engine().run([request(at, 40, sample_index=at, **SEEDED) for at in range(4)])
    assert len({tuple(sample.token_ids) for sample in samples}) == 4


def test_min_tokens_holds_back_the_end(engine: Callable, model: LlamaForCausalLM) -> None:
    """With the end of sequence pushed far up, it comes as soon as it may, and never before."""
    push = {EOS: 100.0}
    at_once, later, never = engine().run(
        [
            request(0, 20, temperature=0, max_tokens=9, logit_bias=push),
            request(1, 20, temperature=0, max_tokens=9, logit_bias=push, min_tokens=6),
            request(2, 20, temperature=0, max_tokens=9, min_tokens=9, logit_bias={9: 100.0}, stop_token_ids=[9]),
        ]
    )
    assert (at_once.token_ids, at_once.finish) == ([EOS], FinishReason.STOP)
    assert len(later.token_ids) == 7
    assert later.token_ids.index(EOS) == 6
    assert (len(never.token_ids), never.finish) == (9, FinishReason.LENGTH)
    assert 9 not in never.token_ids
