"""What is rehearsed covers what the scheduler can ask for, and stays within a cache of one page."""

import numpy as np
import pytest

from octavo.config import EngineConfig, WeightsFormat
from octavo.runtime.rehearsal import rehearsal


@pytest.mark.parametrize(
    ("seqs", "budget", "length"), [(256, 2048, 8192), (300, 2048, 8192), (8, 100, 64), (64, 16, 4096), (1, 1, 16)]
)
def test_the_largest_steps_are_among_the_rehearsed(seqs: int, budget: int, length: int) -> None:
    config = EngineConfig(
        name="m", version=1, weights="", weights_format=WeightsFormat.DUMMY, tokenizer="", max_num_seqs=seqs,
        max_num_batched_tokens=budget,
    )  # fmt: skip
    steps = [step for step, _ in rehearsal(config, length, 100)]
    rows = min(seqs, budget)
    assert max(step.query_lens.max() for step in steps) >= min(budget - rows + 1, length)
    assert max(step.num_decodes for step in steps) == max(len(step.rows) for step in steps) == rows
    assert max(step.query_lens.sum() for step in steps) == min(budget, rows * length)
    assert max(step.samples.sum() for step in steps if len(step.token_ids)) == rows
    # Few tokens of as many prompts as there can be: their attention leaves the most in memory before it is merged.
    assert max(len(step.rows) for step in steps if not step.num_decodes and step.query_lens.max() == 1) == rows
    for step in steps:
        assert step.query_lens[step.num_decodes :].sum() == len(step.token_ids)
        assert (step.query_lens[: step.num_decodes] == 1).all()
        assert (step.query_lens <= step.context_lens).all()
        assert step.context_lens.max() <= length
        assert not len(step.pages)
        assert {start.row for start in step.starts} == set(np.arange(len(step.rows)))
