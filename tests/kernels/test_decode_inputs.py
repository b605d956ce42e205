"""What a step of decodes reads of its rows' state."""

from typing import NamedTuple

import torch


class Case(NamedTuple):
    name: str
    contexts: list[int]
    page_size: int
    width: int


CASES = [
    Case("page-edges", [1, 16, 17, 32, 33], 16, 4),
    Case("padding", [0, 5, -7], 16, 2),
    Case("one", [40], 64, 1),
    Case("long", [0, 300, 1200], 4, 300),
]
GPU_CASES = [Case("full", [131_072, 1, 64, 65], 64, 2048)]


def test_decode_inputs(place, case) -> None:
    count, many = len(case.contexts), len(case.contexts) + 3
    rows = torch.randperm(many)[:count].to(place.device)
    newest = torch.randint(0, 1000, (many,), device=place.device)
    tables = torch.randint(0, 10_000, (many, case.width), dtype=torch.int32, device=place.device)
    contexts = torch.tensor(case.contexts, device=place.device)
    made = place.kernels.decode_inputs(rows, contexts, newest, tables, case.page_size)
    assert contexts.tolist() == case.contexts
    for at, context in enumerate(max(context, 0) for context in case.contexts):
        row = int(rows[at])
        used = -(-context // case.page_size)
        page = int(tables[row, (context - 1) // case.page_size])
        slot = page * case.page_size + (context - 1) % case.page_size
        expected = (int(newest[row]), context - 1, slot, context) if context else (0, 0, -1, 0)
        assert tuple(int(part[at]) for part in (made.token_ids, made.positions, made.slots, made.context_lens)) == expected
        assert made.page_table[at, :used].equal(tables[row, :used])
