"""What a load must read and multiply: counted by hand for a small model, and held against known floors of a large one."""

import pytest

from octavo.bench.phases import NAMED, Phase
from octavo.bench.work import Ceilings, Limits, Work
from octavo.models.hf_config import shape_of

LLAMA_8B = {
    "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072,
}  # fmt: skip
LLAMA_1B = LLAMA_8B | {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64, "tie_word_embeddings": True
}  # fmt: skip
TINY = {
    "model_type": "llama", "vocab_size": 11, "hidden_size": 8, "intermediate_size": 3, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
}  # fmt: skip
H200 = Ceilings(4.31e12, 673e12)
LIMITS = Limits(512, 8192)


def work_of(config: dict, itemsize: int = 2) -> Work:
    return Work(shape_of(config), itemsize, itemsize)


@pytest.mark.parametrize("tied", [False, True])
def test_a_small_model(tied: bool) -> None:
    work = work_of(TINY | {"tie_word_embeddings": tied})
    layer = 8 * 8 + 2 * 4 * 8 + 8 * 8 + 3 * 8 * 3
    assert work.weight_bytes == 2 * (2 * (layer + 2 * 8) + 8 + 11 * 8)
    assert (work.token_flops, work.head_flops) == (2 * 2 * layer, 2 * 11 * 8)
    assert work.cache_bytes == 2 * 2 * 4 * 2
    # Two requests of three tokens in and three out: contexts of 1, 2, 3 and of 4, 5 tokens, two heads of four dimensions.
    phase = Phase("", 2, 3, 3)
    assert work.flops(phase) == 2 * (5 * 4 * layer + 3 * 176 + (1 + 2 + 3 + 4 + 5) * 4 * 2 * 2 * 4)
    assert work.bytes(phase, 7) == 7 * work.weight_bytes + 2 * (4 + 5) * work.cache_bytes


@pytest.mark.parametrize(
    ("config", "phase", "milliseconds"),
    [(LLAMA_8B, "b1", 3.5), (LLAMA_8B, "b64", 4.6), (LLAMA_1B, "b1", 0.58), (LLAMA_1B, "b64", 0.8)],
)
def test_floor_of_a_token(config: dict, phase: str, milliseconds: float) -> None:
    load = NAMED[phase]
    assert work_of(config).floor(load, H200, LIMITS) / load.output_len * 1e3 == pytest.approx(milliseconds, rel=0.02)


@pytest.mark.parametrize(
    ("config", "phase", "rate"),
    [(LLAMA_8B, "prefill8k", 41_800), (LLAMA_8B, "prefill1k", 47_300), (LLAMA_1B, "prefill1k", 336_000)],
)
def test_floor_of_a_prefill(config: dict, phase: str, rate: float) -> None:
    load = NAMED[phase]
    assert load.requests * load.input_len / work_of(config).floor(load, H200, LIMITS) == pytest.approx(rate, rel=0.01)


def test_floor_of_a_decode_step_at_long_contexts() -> None:
    work = work_of(LLAMA_8B)
    long, short = NAMED["ctx8k_b32"], NAMED["prefill8k"]
    decode = work.floor(long, H200, LIMITS) - work.floor(short, H200, LIMITS)
    assert decode / (long.output_len - 1) * 1e3 == pytest.approx(11.5, rel=0.01)


def test_more_requests_than_rows_come_in_waves() -> None:
    work = work_of(LLAMA_8B)
    one, four = (work.floor(Phase("", count, 128, 128), H200, LIMITS) for count in (512, 2048))
    assert four == pytest.approx(4 * one)
