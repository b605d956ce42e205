"""sample: the generator against its published vectors, the draws against brute force, and the Triton kernel against the twin."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch

from octavo_kernels import for_device
from octavo_kernels.reference.philox import philox

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not CUDA, reason="needs a CUDA device")]
TRITON = for_device(torch.device("cuda")).sample
TWIN = for_device(torch.device("cpu")).sample


def options(rows, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seeds=None, sample_index=0, positions=7):
    """The arguments after the logits; a scalar stands for every row."""

    def column(value, dtype):
        return torch.as_tensor(value, dtype=dtype).expand(rows).contiguous()

    return (
        column(temperature, torch.float32),
        column(top_k, torch.int32),
        column(top_p, torch.float32),
        column(min_p, torch.float32),
        torch.arange(rows) if seeds is None else column(seeds, torch.int64),
        column(sample_index, torch.int32),
        column(positions, torch.int64),
    )


def on_device(function, logits, arguments):
    return function(logits.to(DEVICE), *(argument.to(DEVICE) for argument in arguments)).cpu()


# Random123's known answers for philox4x32 with 10 rounds: counter, key, output.
@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, -1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter, key, words) -> None:
    out = philox(tuple(np.array([word], np.uint32) for word in counter), np.array([key], np.int64).view(np.uint64))
    assert tuple(word.item() for word in out) == words


class Case(NamedTuple):
    name: str
    arguments: dict
    vocabulary: int = 5000
    spread: float = 3.0
    rows: int = 2


CASES = [
    Case("greedy", {"temperature": 0.0}),
    Case("temperature", {"temperature": [0.7, 1e-3], "seeds": [-5, 2**62], "positions": [0, 2**31 + 9], "sample_index": [0, 127]}),
    Case("temperature-batch", {}, 300, spread=1.0, rows=24),
    Case("top-k", {"top_k": [1, 40]}),
    Case("top-k-larger-than-vocabulary", {"top_k": 9999}, 700),
    Case("top-p", {"top_p": [0.9, 1e-6], "temperature": [1.5, 1.0]}),
    Case("min-p", {"min_p": [0.05, 1.0]}),
    Case("all", {"temperature": 1.3, "top_k": 50, "top_p": 0.8, "min_p": 0.01}),
    Case("mixed-rows", {"temperature": [0, 1, 1], "top_p": [1, 1, 0.5]}, 300, rows=3),
    Case("flat", {"top_p": 0.999}, 9000, spread=0.0, rows=1),
    Case("many-candidates", {"top_k": [500, 3], "top_p": [0.95, 1.0]}, spread=1.0),
    Case("second-pass-for-top-p", {"top_p": [0.9, 0.3, 0.99], "temperature": [1.0, 20.0, 1.0]}, 9000, spread=1.0, rows=3),
    Case("second-pass-for-min-p", {"min_p": [0.05, 0.02], "top_p": [1.0, 0.8]}, 9000, spread=1.0),
    Case("second-pass-for-top-k", {"top_k": [2500, 4000], "min_p": [0.0, 0.04]}, 6000, spread=1.0),
    Case("edge-among-too-many", {"top_k": 3000, "top_p": 0.9}, spread=0.5, rows=1),
    Case("of-every-kind", {"temperature": [0, 1, 2, 1, 0.5], "top_p": [1, 1, 0.9, 1, 0.7], "top_k": [0, 0, 0, 7, 0]}, 5000, rows=5),
]
GPU_CASES = [
    Case("llama3-batch", {"top_k": 50, "top_p": 0.95, "temperature": 0.8}, 128_256, rows=256),
    Case("llama3-plain", {}, 128_256, rows=256),
    Case("llama3-flat", {"top_p": 0.9}, 128_256, spread=1.0, rows=64),
    Case("llama3-nearly-uniform", {"top_p": [0.5, 0.9, 0.99], "temperature": [1.0, 2.0, 50.0]}, 128_256, spread=0.1, rows=3),
    Case("llama3-alone", {"top_k": 50}, 128_256, rows=1),
    Case("nucleus-of-most", {"top_p": 0.999, "temperature": 2.0}, 152_064, spread=1.0, rows=32),
    Case("gemma", {"min_p": 0.02}, 262_144, rows=16),
    Case("large-k", {"top_k": 20_000, "top_p": 0.9}, 49_152, spread=0.5, rows=64),
]


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(case, marks=ON_GPU) for case in GPU_CASES)], ids=lambda case: case.name)
def test_kernel_draws_what_the_twin_draws(case: Case) -> None:
    logits = torch.randn(case.rows, case.vocabulary) * case.spread
    arguments = options(case.rows, **case.arguments)
    assert on_device(TRITON, logits, arguments).tolist() == TWIN(logits, *arguments).tolist()


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
def test_kernels_noise_is_the_twins_on_the_device() -> None:
    """10,000 rows of a flat distribution: one wrong bit anywhere would change a winner."""
    logits, arguments = torch.zeros(10_000, 1000), options(10_000, positions=2**33 + 1)
    assert (on_device(TRITON, logits, arguments) == TWIN(logits, *arguments)).float().mean() > 0.9999


def kept(logits, temperature, top_k, top_p, min_p):
    """The probabilities after all filters, straight from their definition, for one row of distinct or equal logits."""
    p = (logits.double() / temperature).softmax(-1)
    p = torch.where(p >= min_p * p.max(), p, 0)
    if top_k:
        p = torch.where(p >= p.sort(descending=True).values[min(top_k, len(p)) - 1], p, 0)
    p = p / p.sum()
    if top_p < 1:
        ordered = p.sort(descending=True).values
        edge = ordered[int((ordered.cumsum(0) >= top_p).int().argmax())]
        p = torch.where(p >= edge, p, 0)
    return p / p.sum()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [
        (1, 0, 1, 0),
        (0.5, 0, 1, 0),
        (1, 4, 1, 0),
        (1, 0, 0.7, 0),
        (2, 0, 1, 0.3),
        (1.5, 6, 0.8, 0.1),
        (1, 1, 1, 0),
        (1, 0, 0.01, 0),
        (1, 2, 0.5, 0),
    ],
)
def test_draws_follow_the_filtered_distribution(temperature, top_k, top_p, min_p) -> None:
    logits = torch.tensor([1.0, 0.5, 2.0, -1.0, 2.0, 0.0, 1.0, -1.5, -torch.inf, 1.7])  # with ties, and a token that is banned
    draws = 20_000
    tokens = TWIN(logits.expand(draws, -1), *options(draws, temperature, top_k, top_p, min_p))
    expected = kept(logits, temperature, top_k, top_p, min_p)
    counts = tokens.bincount(minlength=len(logits))
    assert ((counts > 0) == (expected > 0)).all()
    chi_square = ((counts - draws * expected) ** 2 / (draws * expected))[expected > 0].sum()
    freedom = int((expected > 0).sum()) - 1
    assert chi_square <= freedom + 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize(
    ("narrower", "filters", "wider"),
    [
        ({"top_k": 9}, {"top_k": 10}, {"top_k": 11}),
        ({"top_p": 0.79}, {"top_p": 0.8}, {"top_p": 0.81}),
        ({"min_p": 0.12}, {"min_p": 0.1}, {"min_p": 0.09}),
    ],
    ids=["top-k", "top-p", "min-p"],
)
def test_the_kernel_cuts_where_the_twin_does(narrower, filters, wider) -> None:
    """On the draws that a slightly narrower or wider filter would change."""
    logits, draws = torch.randn(100), 4000
    tokens, fewer, more = (TWIN(logits.expand(draws, -1), *options(draws, **choice)) for choice in (filters, narrower, wider))
    seeds = torch.cat([(tokens != other).nonzero().view(-1)[:3] for other in (fewer, more)])
    assert len(seeds) == 6
    assert on_device(TRITON, logits.expand(6, -1), options(6, seeds=seeds, **filters)).tolist() == tokens[seeds].tolist()


def test_far_tokens_win_as_often_as_they_should() -> None:
    logits = torch.zeros(300, 20_000)
    logits[:, 7] = 9.0
    far = (TWIN(logits, *options(300)) != 7).float().mean()
    assert abs(far - 19_999 / (19_999 + math.exp(9))) < 0.1


@pytest.mark.parametrize("filters", [{"top_k": 2}, {"top_p": 0.5}], ids=str)
def test_ties_at_the_edge_are_kept(filters) -> None:
    logits = torch.tensor([0.0, 2.0, 1.0, 1.0, 1.0, -4.0])
    drawn = TWIN(logits.expand(100, -1), *options(100, 5.0, **filters)).tolist()
    assert set(drawn) == {1, 2, 3, 4}
    seeds = [drawn.index(token) for token in (1, 2, 3, 4)]
    assert on_device(TRITON, logits.expand(4, -1), options(4, 5.0, seeds=seeds, **filters)).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("sample", [TWIN, TRITON], ids=["twin", "triton"])
def test_greedy_takes_the_lowest_of_equals(sample) -> None:
    logits = torch.zeros(2, 4500)
    logits[0, [4200, 77, 4400]] = 1.0
    assert on_device(sample, logits, options(2, temperature=0.0)).tolist() == [77, 0]


@pytest.mark.parametrize("sample", [TWIN, TRITON], ids=["twin", "triton"])
def test_draws_go_where_they_are_wanted(sample) -> None:
    logits, tokens = torch.randn(2, 300, device=DEVICE), torch.full((3,), -1, device=DEVICE)
    arguments = [argument.to(DEVICE) for argument in options(2, temperature=[0.0, 1.0])]
    if sample is TWIN:
        logits, tokens, arguments = logits.cpu(), tokens.cpu(), [argument.cpu() for argument in arguments]
    drawn = sample(logits, *arguments, out=tokens[:2])
    assert drawn.data_ptr() == tokens.data_ptr()
    assert tokens.tolist() == [*sample(logits, *arguments).tolist(), -1]


@pytest.mark.parametrize("sample", [TWIN, TRITON], ids=["twin", "triton"])
def test_a_row_draws_the_same_alone_and_in_any_batch(sample) -> None:
    logits = torch.randn(3, 600)
    arguments = options(3, temperature=[1.0, 0.0, 0.8], top_p=[1.0, 1.0, 0.9], seeds=[3, 4, 5])
    batched = on_device(sample, logits, arguments).tolist()
    for row in range(3):
        alone = on_device(sample, logits[row : row + 1], [argument[row : row + 1] for argument in arguments])
        assert alone.tolist() == [batched[row]]


def test_seed_position_and_sample_index_each_change_the_noise() -> None:
    logits = torch.zeros(1, 50_000)
    drawn = [
        int(TWIN(logits, *options(1, seeds=seed, positions=position, sample_index=index)))
        for seed, position, index in [(1, 1, 0), (2, 1, 0), (1 + 2**32, 1, 0), (1, 2, 0), (1, 1, 1)]
    ]
    assert len(set(drawn)) == 5


@pytest.mark.parametrize("sample", [TWIN, TRITON], ids=["twin", "triton"])
@pytest.mark.parametrize("value", [float("nan"), -torch.inf])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_hopeless_logits_still_give_a_token_of_the_vocabulary(sample, value) -> None:
    logits = torch.full((3, 100), value)
    tokens = on_device(sample, logits, options(3, temperature=[0.0, 1.0, 1.0], top_p=[1.0, 1.0, 0.9]))
    assert ((tokens >= 0) & (tokens < 100)).all()
