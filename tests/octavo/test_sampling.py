"""``SamplingParams``: vLLM's defaults, and every value out of range refused by name."""

import msgspec
import pytest

from octavo.errors import InvalidRequest
from octavo.sampling import SamplingParams

REFUSED = {
    "n": [0, 129],
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
    "stop": [("",), ("x",) * 33, ("x" * 1025,)],
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
    SamplingParams(n=128, temperature=1e4, top_p=1.0, top_k=-1, min_p=1.0, seed=2**64 - 1, max_tokens=1, logprobs=0)


def test_crosses_a_socket_unchanged() -> None:
    params = SamplingParams(temperature=0.3, stop=("a", "b"), logit_bias={5: -1.0}, seed=7)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(params), type=SamplingParams) == params
