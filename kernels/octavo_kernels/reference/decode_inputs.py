"""The twin of ``octavo_kernels.decode_inputs`` in plain torch."""

from typing import NamedTuple

import torch


class DecodeInputs(NamedTuple):
    """For R rows: ``token_ids``, ``positions`` and ``slots`` int64 [R]; ``page_table`` int32 [R, P]; ``context_lens`` int32 [R].

    A row without context has token 0, position 0, slot -1 and length 0. Entries of the page table behind a row's context are
    of no meaning.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    page_table: torch.Tensor
    context_lens: torch.Tensor


def decode_inputs(
    rows: torch.Tensor, contexts: torch.Tensor, newest: torch.Tensor, page_tables: torch.Tensor, page_size: int
) -> DecodeInputs:
    """Gather what a step over ``rows`` (int64 [R]) takes, each of which computes the token that it has ``newest``.

    ``contexts``: int64 [R], tokens of each row in the cache when the step is done; 0 or less for a row that is only padding.
    ``newest``: int64 [N] and ``page_tables``: int32 [N, P], the state of all rows, indexed by ``rows``.
    """
    lengths = contexts.clamp(min=0)
    positions = (lengths - 1).clamp(min=0)
    table = page_tables[rows]
    page = table.gather(1, (positions // page_size)[:, None])[:, 0].to(torch.int64)
    real = lengths > 0
    slots = torch.where(real, page * page_size + positions % page_size, -1)
    return DecodeInputs(torch.where(real, newest[rows], 0), positions, slots, table, lengths.to(torch.int32))
