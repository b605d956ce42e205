"""The layout of a step on the device, token by token."""

import numpy as np
import pytest
import torch

from octavo.engine.step import StepInput
from octavo.runtime.batch import Batch, build_batch
from octavo.runtime.courier import Courier
from octavo.runtime.state import RowState

CPU = torch.device("cpu")
PAGE = 4


def batch_of(rows: list[tuple[int, int, list[int]]], num_decodes: int, samples: list[bool]) -> Batch:
    """``rows``: (query length, context length, pages) of each. Row r of the step is row 5 - r of the device."""
    queries, contexts, pages = zip(*rows, strict=True)
    courier = Courier(CPU)
    state = RowState(6, 5, courier, CPU)
    mine = 5 - np.arange(len(rows))
    state.newest[mine] = torch.arange(100, 100 + len(rows))
    changes = [(row, place, page) for row, one in zip(mine, pages, strict=True) for place, page in enumerate(one)]
    state.set_pages(np.array(changes, np.int32))
    token_ids = np.arange(100 + num_decodes, 100 + sum(queries), dtype=np.int32)
    lens = np.array(queries), np.array(contexts)
    step = StepInput([], np.zeros((0, 3), np.int32), mine, token_ids, *lens, num_decodes, np.array(samples))
    return build_batch(step, np.flatnonzero(samples), state, PAGE, courier)


def test_decodes_come_first_and_every_token_has_its_place() -> None:
    batch = batch_of([(1, 6, [3, 9]), (1, 4, [5]), (3, 3, [7]), (4, 10, [2, 8, 1])], 2, [True, True, False, True])
    attention = batch.attention
    assert batch.token_ids.tolist() == list(range(100, 109))
    assert attention.positions.tolist() == [5, 3, 0, 1, 2, 6, 7, 8, 9]
    assert attention.slots.tolist() == [9 * 4 + 1, 5 * 4 + 3, 28, 29, 30, 8 * 4 + 2, 8 * 4 + 3, 4, 5]
    assert attention.cu_query.tolist() == [0, 1, 2, 5, 9]
    assert attention.context_lens.tolist() == [6, 4, 3, 10]
    assert (attention.num_decodes, attention.max_query_len) == (2, 4)
    assert batch.rows.tolist() == [5, 4, 2]
    assert batch.last is not None
    assert batch.last.tolist() == [0, 1, 8]
    assert batch.positions.tolist() == [6, 4, 10]


def test_a_step_of_decodes_alone_gathers_nothing() -> None:
    batch = batch_of([(1, 6, [3, 9]), (1, 4, [5])], 2, [True, True])
    assert batch.last is None
    assert batch.attention.max_query_len == 0


def test_a_step_that_completes_no_prompt_samples_nothing() -> None:
    batch = batch_of([(3, 3, [7])], 0, [False])
    assert batch.last is not None
    assert batch.last.tolist() == batch.positions.tolist() == batch.rows.tolist() == []


@pytest.mark.parametrize("name", ["token_ids", "positions"])
def test_wide_arrays_are_int64(name: str) -> None:
    batch = batch_of([(2, 2, [0])], 0, [True])
    assert getattr(batch, name).dtype == torch.int64
    assert batch.attention.slots.dtype == batch.attention.positions.dtype == torch.int64
    assert batch.attention.page_table.dtype == batch.attention.cu_query.dtype == batch.attention.context_lens.dtype == torch.int32
