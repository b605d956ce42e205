"""``AttentionContext``: where the tokens of one step stand in the paged cache, and the attention over it. Knows no model."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from octavo_kernels import Kernels

Attend = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class AttentionContext:
    """One step over R rows and T tokens, on the device; rows that decode (one token each) come first.

    ``positions``: int64 [T]. ``slots``: int64 [T], page * page_size + offset, -1 for a token that is not to be written.
    ``page_table``: int32 [R, P]. ``context_lens``: int32 [R], tokens of each row in the cache when the step is done.
    ``cu_query``: int32 [R + 1], row r's tokens are ``cu_query[r]`` to ``cu_query[r + 1]``. ``num_decodes``: rows that decode.
    ``max_query_len``: the longest of the other rows.
    """

    positions: torch.Tensor
    slots: torch.Tensor
    page_table: torch.Tensor
    context_lens: torch.Tensor
    cu_query: torch.Tensor
    num_decodes: int
    max_query_len: int

    def attend(self, kernels: Kernels, scale: float) -> Attend:
        """The attention of this step as a function of queries [T, H, D] and one layer's cache, the same for every layer."""
        decodes, rows = self.num_decodes, len(self.context_lens)
        if decodes == rows:
            return lambda q, kv: kernels.paged_decode(q, kv, self.page_table, self.context_lens, scale)
        prefill = self._prefill(kernels, scale)
        if decodes == 0:
            return prefill
        pages, lens = self.page_table[:decodes], self.context_lens[:decodes]
        return lambda q, kv: torch.cat([kernels.paged_decode(q[:decodes], kv, pages, lens, scale), prefill(q[decodes:], kv)])

    def _prefill(self, kernels: Kernels, scale: float) -> Attend:
        first = self.num_decodes
        pages, lens, starts = self.page_table[first:], self.context_lens[first:], self.cu_query[first:] - first
        return lambda q, kv: kernels.paged_prefill(q, kv, pages, starts, lens, self.max_query_len, scale)
