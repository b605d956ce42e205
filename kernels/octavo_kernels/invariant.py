"""The kernels of which each row's, and each token's, result is the same whatever else is computed with it. Knows no model.

``__all__`` names those that differ from the usual ones, which choose tilings and splits by the size of a batch. Here shapes of the
model alone decide. The others work on each row for itself as they are.
"""

from typing import Any

import torch

from octavo_kernels.invariant_linear import linear
from octavo_kernels.paged_prefill import prefill_anywhere
from octavo_kernels.rope_cache import rope_cache_by
from octavo_kernels.sample import Share, sample_by

__all__ = ["linear", "paged_decode", "paged_prefill", "plan_decode", "rope_cache", "sample"]

_NUMBERS = 1024
_SHARE = Share(2048, 8)


def rope_cache(
    qkv: torch.Tensor,
    positions: torch.Tensor,
    cos_sin: torch.Tensor,
    slots: torch.Tensor,
    kv: torch.Tensor,
    num_heads: int,
    num_kv_heads: int,
    q_norm: torch.Tensor | None = None,
    k_norm: torch.Tensor | None = None,
    eps: float = 1e-6,
) -> torch.Tensor:
    """See ``octavo_kernels.rope_cache``."""
    return rope_cache_by(_NUMBERS, qkv, positions, cos_sin, slots, kv, num_heads, num_kv_heads, q_norm, k_norm, eps)


def plan_decode(context_lens: torch.Tensor, num_kv_heads: int) -> Any:
    """See ``octavo_kernels.plan_decode``; here only where each row's query begins, int32 [R + 1], as ``paged_prefill`` has it."""
    return torch.arange(len(context_lens) + 1, dtype=torch.int32, device=context_lens.device)


def paged_decode(
    q: torch.Tensor, kv: torch.Tensor, page_table: torch.Tensor, context_lens: torch.Tensor, scale: float, plan: Any,
    out: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """See ``octavo_kernels.paged_decode``; the attention of a chunk of one query."""
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device) if out is None else out
    return prefill_anywhere(q, kv, page_table, plan, context_lens, 1, scale, out, alike=True)


def paged_prefill(
    q: torch.Tensor,
    kv: torch.Tensor,
    page_table: torch.Tensor,
    cu_query: torch.Tensor,
    context_lens: torch.Tensor,
    max_query_len: int,
    scale: float,
    plan: Any,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """See ``octavo_kernels.paged_prefill``."""
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device) if out is None else out
    return prefill_anywhere(q, kv, page_table, cu_query, context_lens, max_query_len, scale, out, alike=True)


def sample(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    seeds: torch.Tensor,
    sample_index: torch.Tensor,
    positions: torch.Tensor,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """See ``octavo_kernels.sample``."""
    return sample_by(_SHARE, logits, (temperature, top_k, top_p, min_p, seeds, sample_index, positions), out)
