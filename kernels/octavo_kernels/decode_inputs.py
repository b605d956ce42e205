"""The inputs of a step in which every row decodes, gathered from the rows' state on the device, in Triton. Knows no scheduler.

One program a row: it reads the row's newest token and copies as much of its page table as its context needs, so that a step
whose rows have not changed takes nothing from the host.
"""

import torch
import triton
import triton.language as tl

from octavo_kernels.reference.decode_inputs import DecodeInputs

_BLOCK = 256


@triton.jit
def _decode_inputs_kernel(
    rows_ptr, contexts_ptr, newest_ptr, tables_ptr, tokens_ptr, positions_ptr, slots_ptr, table_ptr, lengths_ptr, width,
    PAGE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64)
    context = tl.maximum(tl.load(contexts_ptr + at), 0)
    real = context > 0
    row = tl.load(rows_ptr + at)
    position = tl.maximum(context - 1, 0)
    page = tl.load(tables_ptr + row * width + position // PAGE, real, other=0).to(tl.int64)
    tl.store(tokens_ptr + at, tl.load(newest_ptr + row, real, other=0))
    tl.store(positions_ptr + at, position)
    tl.store(slots_ptr + at, tl.where(real, page * PAGE + position % PAGE, -1))
    tl.store(lengths_ptr + at, context.to(tl.int32))
    used = tl.cdiv(context, PAGE)
    for start in range(0, used, BLOCK):
        place = start + tl.arange(0, BLOCK)
        inside = place < used
        tl.store(table_ptr + at * width + place, tl.load(tables_ptr + row * width + place, inside, other=0), inside)


def decode_inputs(
    rows: torch.Tensor, contexts: torch.Tensor, newest: torch.Tensor, page_tables: torch.Tensor, page_size: int
) -> DecodeInputs:
    """Gather what a step over ``rows`` (int64 [R]) takes, each of which computes the token that it has ``newest``.

    ``contexts``: int64 [R], tokens of each row in the cache when the step is done; 0 or less for a row that is only padding.
    ``newest``: int64 [N] and ``page_tables``: int32 [N, P], the state of all rows, indexed by ``rows``.
    """
    count, width = len(rows), page_tables.shape[1]
    token_ids, positions, slots = (torch.empty_like(rows) for _ in range(3))
    table = torch.empty((count, width), dtype=torch.int32, device=rows.device)
    lengths = torch.empty(count, dtype=torch.int32, device=rows.device)
    _decode_inputs_kernel[(count,)](
        rows, contexts, newest, page_tables, token_ids, positions, slots, table, lengths, width,
        PAGE=page_size, BLOCK=_BLOCK, num_warps=4,
    )  # fmt: skip
    return DecodeInputs(token_ids, positions, slots, table, lengths)
