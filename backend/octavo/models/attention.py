"""``AttentionContext``: where the tokens of one step stand in the paged cache, and the attention over it. Knows no weights."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from octavo.models.shape import ModelShape
from octavo_kernels import Kernels

Attend = Callable[..., torch.Tensor]


@dataclass(frozen=True, slots=True)
class AttentionContext:
    """One step over R rows and T tokens, on the device; rows that decode (one token each) come first.

    ``positions``: int64 [T]. ``slots``: int64 [T], page * page_size + offset, -1 for a token that is not to be written.
    ``page_table``: int32 [R, P]. ``context_lens``: int32 [R], tokens of each row in the cache when the step is done.
    ``num_decodes``: rows that decode. ``cu_query``: int32 [R + 1], row r's tokens are ``cu_query[r]`` to ``cu_query[r + 1]``,
    and ``max_query_len``, the longest of the other rows, matter only if there are any.
    """

    positions: torch.Tensor
    slots: torch.Tensor
    page_table: torch.Tensor
    context_lens: torch.Tensor
    num_decodes: int
    cu_query: torch.Tensor | None = None
    max_query_len: int = 0

    def attend(self, kernels: Kernels, shape: ModelShape) -> Attend:
        """The attention of this step as a function of queries [T, H, D] and one layer's cache, the same for every layer."""
        decodes, rows = self.num_decodes, len(self.context_lens)
        if decodes == 0:
            return self._prefill(kernels, shape)
        decode = self._decode(kernels, shape)
        if decodes == rows:
            return decode
        prefill = self._prefill(kernels, shape)

        def both(q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
            out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
            decode(q[:decodes], kv, out[:decodes])
            prefill(q[decodes:], kv, out[decodes:])
            return out

        return both

    def _decode(self, kernels: Kernels, shape: ModelShape) -> Attend:
        pages, lens = self.page_table[: self.num_decodes], self.context_lens[: self.num_decodes]
        plan, scale = kernels.plan_decode(lens, shape.num_kv_heads), shape.head_dim**-0.5
        return lambda q, kv, out=None: kernels.paged_decode(q, kv, pages, lens, scale, plan, out)

    def _prefill(self, kernels: Kernels, shape: ModelShape) -> Attend:
        assert self.cu_query is not None
        first = self.num_decodes
        pages, lens, starts = self.page_table[first:], self.context_lens[first:], self.cu_query[first:] - first
        tokens, scale = len(self.positions) - first, shape.head_dim**-0.5
        plan = kernels.plan_prefill(starts, lens, tokens, shape.num_heads, shape.num_kv_heads, shape.head_dim)
        return lambda q, kv, out=None: kernels.paged_prefill(q, kv, pages, starts, lens, self.max_query_len, scale, plan, out)
