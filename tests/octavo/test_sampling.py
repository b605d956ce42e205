"""``SamplingParams``: vLLM's defaults, and every value out of range refused by name."""

from pathlib import Path

import msgspec
import pytest

from octavo.errors import InvalidRequest, Unsupported
from octavo.sampling import NOT_SERVED, SamplingParams

REFUSED = {
    "n": [0, -1],
    "temperature": [-0.1, float("nan"), float("inf")],
    "top_p": [0.0, 1.01, -1.0, float("nan")],
    "top_k": [-2],
    "min_p": [-0.1, 1.1],
    "presence_penalty": [-2.1, 2.1],
    "frequency_penalty": [-2.1, 2.1],
    "repetition_penalty": [0.0, -1.0, 9e-5, 1e-46, 1.1e4],
    "min_tokens": [-1],
    "max_tokens": [0, -5],
    "logprobs": [-1],
    "prompt_logprobs": [-1],
    "seed": [2**64, -(2**63) - 1],
    "stop": [("",), ("x", "")],
    "logit_bias": [{1: float("inf")}, {1: float("nan")}, {1: 1e39}, {1: -1e39}, dict.fromkeys(range(1025), 1.0)],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=name):
        SamplingParams(**{name: value})


def test_contradictions_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="min_tokens"):
        SamplingParams(min_tokens=9, max_tokens=8)
    with pytest.raises(InvalidRequest, match="n must be 1"):
        SamplingParams(n=2, temperature=0)


def test_the_edges_are_accepted() -> None:
    SamplingParams(n=1024, temperature=1e4, top_p=1.0, top_k=-1, min_p=1.0, seed=2**64 - 1, max_tokens=1, logprobs=0)


def test_crosses_a_socket_unchanged() -> None:
    params = SamplingParams(temperature=0.3, stop=("a", "b"), logit_bias={5: -1.0}, seed=7)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(params), type=SamplingParams) == params


VLLM_0_26 = {
    "n": 1, "presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0, "temperature": 1.0, "top_p": 1.0,
    "top_k": 0, "min_p": 0.0, "seed": None, "stop": None, "stop_token_ids": None, "ignore_eos": False, "max_tokens": 16,
    "min_tokens": 0, "logprobs": None, "prompt_logprobs": None, "prompt_logprob_token_ids": None, "prompt_logprob_start": None,
    "logprob_token_ids": None, "flat_logprobs": False, "detokenize": True, "skip_special_tokens": True,
    "spaces_between_special_tokens": True, "include_stop_str_in_output": False, "stream_interval": None,
    "structured_outputs": None, "logit_bias": None, "allowed_token_ids": None, "extra_args": None, "bad_words": None,
    "skip_reading_prefix_cache": None, "thinking_token_budget": None, "repetition_detection": None,
    "routed_experts_prompt_start": 0, "trace_decode_token_ids": None,
}  # fmt: skip


def test_the_names_and_defaults_are_vllms() -> None:
    assert set(SamplingParams.__struct_fields__) == set(VLLM_0_26)
    assert SamplingParams(**VLLM_0_26) == SamplingParams()


def test_bad_words_have_a_limit() -> None:
    assert len(SamplingParams(bad_words=["x" * 256] * 128).bad_words) == 128
    for words in (["x"] * 129, ["x" * 257], [""]):
        with pytest.raises(InvalidRequest, match="bad_words must hold at most 128 strings of 1 to 256 characters each"):
            SamplingParams(bad_words=words)


def test_one_string_and_lists_are_taken() -> None:
    params = SamplingParams(stop="a", stop_token_ids=[1, 2])
    assert (params.stop, params.stop_token_ids) == (("a",), (1, 2))
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")


@pytest.mark.parametrize("name", NOT_SERVED)
def test_what_is_not_served_is_refused_by_name(name: str) -> None:
    with pytest.raises(Unsupported, match=name):
        SamplingParams(**{name: ["something"]})


def test_a_changed_field_is_checked_when_it_is_made_anew() -> None:
    params = SamplingParams()
    params.temperature = -1.0
    with pytest.raises(ValueError, match="temperature"):
        msgspec.structs.replace(params)


def test_the_page_names_what_is_not_served() -> None:
    page = (Path(__file__).parents[2] / "docs" / "offline.md").read_text(encoding="utf-8")
    assert [name for name in NOT_SERVED if f"`{name}`" not in page] == []
