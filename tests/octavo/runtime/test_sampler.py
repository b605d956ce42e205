"""The sampler against a straightforward float64 reading of vLLM's definitions."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from octavo.engine.messages import TokenLogprobs
from octavo.engine.step import Masks, RowStart
from octavo.runtime.courier import Courier
from octavo.runtime.launched import Drawn, LaunchedStep
from octavo.runtime.penalties import PenaltyTable
from octavo.runtime.rows import SamplingTable
from octavo.runtime.sampler import Sampler
from octavo.sampling import SamplingParams
from octavo_kernels import for_device

CPU = torch.device("cpu")
VOCAB = 60
EOS = 7
NO_MASKS = Masks({}, np.zeros((0, 2), np.int32))


def random_logits(rows: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * scale


def make_sampler(table: SamplingTable, max_rows: int, vocab_size: int, device: torch.device) -> Sampler:
    courier = Courier(device)
    kernels = for_device(device)
    return Sampler(table, PenaltyTable(max_rows, vocab_size, kernels, courier, device), kernels, courier)


def draw(
    table: SamplingTable,
    sampler: Sampler,
    logits: torch.Tensor,
    rows: np.ndarray,
    positions: np.ndarray,
    masks: Masks = NO_MASKS,
) -> tuple[list[int], dict[int, TokenLogprobs]]:
    """What the runner does with the logits of a step; changes them."""
    courier = Courier(logits.device)
    asked = sampler.edit(logits, rows, positions)
    sampler.restrict(logits, rows, masks)
    *options, there = courier.send([*table.options(rows), positions])
    drawn = for_device(logits.device).sample(logits, *options, there)
    sampler.count(rows, drawn)
    step = LaunchedStep(len(rows), lambda _: Drawn.of(np.arange(len(rows)), drawn, asked, courier), {})
    step.draw(NO_MASKS)
    made = step.wait()
    return made.token_ids[:, 0].tolist(), {at: entries[0] for at, entries in made.logprobs.items()}


class Table(NamedTuple):
    """A sampler with its rows."""

    rows: SamplingTable
    sampler: Sampler

    def start(self, row: int, sampling: SamplingParams, prompt: list[int], **more: object) -> None:
        """``more``: answer, seed, sample_index."""
        answer, seed, index = more.get("answer", []), more.get("seed", 11), more.get("sample_index", 0)
        ids = np.array([*prompt, *answer], np.int32)
        self.sampler.start(RowStart(row, ids, len(prompt), sampling, index, seed, () if sampling.ignore_eos else (EOS,), True))

    def sample(self, logits: torch.Tensor, rows: list[int], positions: list[int]) -> tuple[list[int], dict[int, TokenLogprobs]]:
        return draw(self.rows, self.sampler, logits, np.array(rows), np.array(positions))


@pytest.fixture
def table() -> Table:
    rows = SamplingTable(16, VOCAB)
    return Table(rows, make_sampler(rows, 16, VOCAB, CPU))


def edited(logits: torch.Tensor, sampling: SamplingParams, prompt: list[int], answer: list[int]) -> np.ndarray:
    """What bias, min_tokens and penalties make of one row, token by token."""
    out = logits.double().numpy().copy()
    for token, bias in sampling.logit_bias.items():
        out[token] += bias
    if len(answer) < sampling.min_tokens:
        for token in {*sampling.stop_token_ids, *([] if sampling.ignore_eos else [EOS])}:
            out[token] = -np.inf
    for token in {*prompt, *answer}:
        out[token] = out[token] / sampling.repetition_penalty if out[token] > 0 else out[token] * sampling.repetition_penalty
    for token in set(answer):
        out[token] -= sampling.frequency_penalty * answer.count(token) + sampling.presence_penalty
    return out


def distribution(logits: torch.Tensor, sampling: SamplingParams) -> np.ndarray:
    """The probabilities that temperature, min_p, top_k and top_p leave of one row without ties."""
    scaled = logits.double().numpy() / sampling.temperature
    p = np.exp(scaled - scaled.max())
    p[p < sampling.min_p] = 0
    p /= p.sum()
    if sampling.top_k > 0:
        p[np.argsort(-p)[sampling.top_k :]] = 0
        p /= p.sum()
    order = np.argsort(-p)
    before = np.cumsum(p[order]) - p[order]
    p[order[before >= sampling.top_p]] = 0
    return p / p.sum()


EDITS = [
    SamplingParams(temperature=0, repetition_penalty=1.3),
    SamplingParams(temperature=0, repetition_penalty=0.7, presence_penalty=-0.5),
    SamplingParams(temperature=0, presence_penalty=0.8, frequency_penalty=0.25),
    SamplingParams(temperature=0, logit_bias={3: 5.5, 9: -4.0}, repetition_penalty=1.5),
    SamplingParams(temperature=0, min_tokens=9, max_tokens=16, stop_token_ids=(2, 4), logit_bias={2: 50.0}),
    SamplingParams(temperature=0, min_tokens=9, max_tokens=16, ignore_eos=True, stop_token_ids=(5,), frequency_penalty=2.0),
    SamplingParams(temperature=0),
]
PROMPT, ANSWER = [3, 3, 1, 40, 9], [9, 9, 12, 55, 9]


def test_bias_min_tokens_and_penalties_change_the_logits_as_defined(table: Table) -> None:
    """All in one batch, so that no row's wishes reach another."""
    logits = random_logits(len(EDITS))
    expected = [edited(row, sampling, PROMPT, ANSWER) for row, sampling in zip(logits, EDITS, strict=True)]
    for row, sampling in enumerate(EDITS):
        table.start(row, sampling, PROMPT, answer=ANSWER)
    tokens, _ = table.sample(logits, list(range(len(EDITS))), [len(PROMPT) + len(ANSWER)] * len(EDITS))
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-6, atol=1e-6)
    assert tokens == [int(row.argmax()) for row in expected]


def test_penalties_follow_what_is_sampled(table: Table) -> None:
    """Twenty tokens in, the counts are those of the whole answer: also for tokens that the prompt did not hold."""
    sampling = SamplingParams(temperature=0, repetition_penalty=1.1, presence_penalty=0.4, frequency_penalty=0.3)
    table.start(2, sampling, PROMPT)
    answer: list[int] = []
    for step in range(20):
        logits = random_logits(1, seed=step, scale=0.5)
        expected = edited(logits[0], sampling, PROMPT, answer)
        tokens, _ = table.sample(logits, [2], [len(PROMPT) + len(answer)])
        np.testing.assert_allclose(logits[0].numpy(), expected, rtol=1e-5, atol=1e-5)
        answer += tokens
    assert len(set(answer)) > 5


def test_min_tokens_ends_with_the_last_held_back_token(table: Table) -> None:
    logits = torch.zeros(1, VOCAB)
    logits[0, EOS] = 9.0
    table.start(0, SamplingParams(temperature=0, min_tokens=3, max_tokens=8), PROMPT)
    drawn = [table.sample(logits.clone(), [0], [len(PROMPT) + made])[0][0] for made in range(5)]
    assert drawn == [0, 0, 0, EOS, EOS]


def test_a_new_owner_of_a_row_inherits_nothing(table: Table) -> None:
    asking = SamplingParams(
        temperature=0.7, top_k=3, min_p=0.2, logit_bias={1: 20.0}, min_tokens=5, presence_penalty=1.0, logprobs=2, prompt_logprobs=1
    )
    logits = random_logits(1)
    table.start(4, asking, PROMPT)
    assert table.sample(logits.clone(), [4], [5])[0] == [1]
    table.start(4, SamplingParams(temperature=0), [1, 2])
    after = logits.clone()
    tokens, logprobs = table.sample(after, [4], [2])
    assert tokens == [int(logits.argmax())]
    assert not logprobs
    assert not table.rows.prompts
    assert torch.equal(after, logits)


FILTERS = [
    SamplingParams(temperature=1.0),
    SamplingParams(temperature=0.6),
    SamplingParams(temperature=1.5, top_k=5),
    SamplingParams(temperature=1.0, top_p=0.8),
    SamplingParams(temperature=1.3, top_k=20, top_p=0.7),
    SamplingParams(temperature=1.2, min_p=0.1),
    SamplingParams(temperature=2.0, min_p=0.05, top_k=12, top_p=0.9),
    SamplingParams(temperature=1.0, top_k=-1),
    SamplingParams(temperature=1.0, top_k=2**31 - 1),
    SamplingParams(temperature=1.0, top_p=1e-6),
]


@pytest.mark.parametrize("sampling", FILTERS)
def test_draws_follow_the_filtered_distribution(table: Table, sampling: SamplingParams) -> None:
    draws = 20_000
    logits = random_logits(1, seed=5, scale=1.5)
    expected = distribution(logits[0], sampling)
    table.start(0, sampling, PROMPT)
    tokens, _ = table.sample(logits.expand(draws, VOCAB).clone(), [0] * draws, list(range(draws)))
    counts = np.bincount(tokens, minlength=VOCAB)
    assert counts[expected == 0].sum() == 0
    assert counts[expected > 20 / draws].all()
    # A mean of |count/n - p| over fixed seeds: its expectation is below sqrt(p / n) a token.
    assert np.abs(counts / draws - expected).sum() < 1.2 * np.sqrt(expected / draws).sum()


def test_a_temperature_near_zero_is_greedy(table: Table) -> None:
    logits = random_logits(1)
    table.start(0, SamplingParams(temperature=1e-6), PROMPT)
    assert table.sample(logits.clone(), [0], [5])[0] == [int(logits.argmax())]


def draw_alone(sampling: SamplingParams, logits: torch.Tensor, row: int, **start: int) -> list[int]:
    rows = SamplingTable(16, VOCAB)
    table = Table(rows, make_sampler(rows, 16, VOCAB, CPU))
    table.start(row, sampling, PROMPT, **start)
    return [table.sample(one[None].clone(), [row], [5 + at])[0][0] for at, one in enumerate(logits)]


def test_a_seeded_draw_depends_on_seed_index_and_position_alone(table: Table) -> None:
    sampling = SamplingParams(temperature=1.0, top_p=0.95)
    logits = random_logits(40, seed=1)
    alone = draw_alone(sampling, logits, row=0, seed=99)
    assert draw_alone(sampling, logits, row=13, seed=99) == alone
    table.start(6, sampling, PROMPT, seed=99)
    for other in (0, 1, 9):
        table.start(other, SamplingParams(temperature=0.0 if other == 1 else 1.4, top_k=other), PROMPT, seed=other)
    crowd = []
    for at, one in enumerate(logits):
        order = [0, 1, 6, 9] if at % 2 else [9, 6, 0]
        if at == 20:  # preempted, and back with its answer so far, in the same row or another's shape of the batch
            table.start(6, sampling, PROMPT, answer=crowd[:], seed=99)
        noise = random_logits(len(order), seed=100 + at)
        noise[order.index(6)] = one
        crowd.append(table.sample(noise, order, [5 + at if row == 6 else 300 for row in order])[0][order.index(6)])
    assert crowd == alone


@pytest.mark.parametrize("other", [{"seed": 98}, {"seed": 99 - 2**63}, {"seed": 99, "sample_index": 1}])
def test_another_seed_or_sample_draws_otherwise(other: dict[str, int]) -> None:
    logits = random_logits(40, seed=1)
    sampling = SamplingParams(temperature=1.0)
    assert draw_alone(sampling, logits, row=0, **other) != draw_alone(sampling, logits, row=0, seed=99)


def test_logprobs_are_of_the_raw_logits(table: Table) -> None:
    """Penalties, bias, temperature and filters do not show in them; rows that did not ask have none."""
    logits = random_logits(4, seed=3)
    expected = torch.log_softmax(logits.double(), -1)
    bent = SamplingParams(temperature=3.0, logit_bias={17: 30.0}, repetition_penalty=1.4, logprobs=4)
    for row, sampling in enumerate([bent, SamplingParams(temperature=0), SamplingParams(temperature=0, logprobs=0), bent]):
        table.start(row, sampling, PROMPT)
    tokens, logprobs = table.sample(logits.clone(), [0, 1, 2, 3], [5, 5, 5, 5])
    assert sorted(logprobs) == [0, 2, 3]
    assert tokens[0] == tokens[3] == 17
    for at, entry in logprobs.items():
        assert entry.token_ids[0] == tokens[at]
        assert entry.ranks[0] == 1 + int((logits[at] > logits[at, tokens[at]]).sum())
        count = 0 if at == 2 else 4
        assert entry.token_ids[1:] == logits[at].topk(count).indices.tolist()
        assert entry.ranks[1:] == list(range(1, count + 1))
        assert entry.logprobs == pytest.approx(expected[at, entry.token_ids].tolist(), abs=1e-5)


def test_a_mask_is_the_last_word_and_logprobs_are_of_what_was_before(table: Table) -> None:
    for row in (0, 1):
        table.start(row, SamplingParams(temperature=0.0, logprobs=0, logit_bias={3: 100.0}), [1])
    logits = random_logits(2)
    expected = torch.log_softmax(logits[1], 0)[5].item()
    only_five = Masks({1: 1}, np.array([[0, 0], [1 << 5, 0]], np.int32))
    tokens, scores = draw(table.rows, table.sampler, logits, np.array([0, 1]), np.array([1, 1]), only_five)
    assert tokens == [3, 5]
    assert scores[1].logprobs[0] == pytest.approx(expected, abs=1e-5)


def test_masks_are_those_of_the_rows_of_each_step_whatever_was_before(table: Table) -> None:
    """Nothing of a step stays for the next one: rows, places and boards change one by one, and what stands at a place as well."""
    for row in range(4):
        table.start(row, SamplingParams(temperature=0), PROMPT)
    board = np.zeros((5, 2), np.int32)
    board[:, 0] = 1 << np.arange(5)
    other = np.roll(board, 1, axis=0)

    def drawn(rows: list[int], places: dict[int, int], on: np.ndarray = board) -> list[int]:
        logits = random_logits(len(rows))
        logits[:, 50] = 100.0
        return draw(table.rows, table.sampler, logits, np.array(rows), np.full(len(rows), 5), Masks(places, on))[0]

    assert drawn([0, 1, 2], {0: 4, 2: 1}) == [4, 50, 1]
    assert drawn([0, 1, 2], {0: 4, 2: 1}) == [4, 50, 1]
    assert drawn([2, 1, 0], {0: 4, 2: 1}) == [1, 50, 4]
    assert drawn([2, 1, 0], {0: 3, 2: 1}) == [1, 50, 3]
    assert drawn([2, 1, 0], {0: 3, 1: 1}) == [50, 1, 3]
    assert drawn([2, 1, 0], {0: 3, 1: 1}, other) == [50, 0, 2]
    assert drawn([2, 1], {1: 1}, other) == [50, 0]
    assert drawn([3, 2], {1: 1}, other) == [50, 50]
    other[1, 0] = 1 << 9
    assert drawn([2, 1], {1: 1}, other) == [50, 9]
    assert drawn([2, 1], {}) == [50, 50]
