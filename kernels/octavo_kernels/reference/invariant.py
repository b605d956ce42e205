"""The twin of ``octavo_kernels.invariant`` in plain torch: every row, and every token, is computed alone. Knows no model.

How torch and its libraries sum depends on a matrix's height, on a row's place in it and on how memory is aligned. One row's copy is
the same call in any batch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import linear as multiply

from octavo_kernels.reference import linear as twin_linear
from octavo_kernels.reference import paged_decode as twin_decode
from octavo_kernels.reference import plan_decode as twin_plan
from octavo_kernels.reference import rmsnorm as twin_norm
from octavo_kernels.reference import rope_cache as twin_rope
from octavo_kernels.reference import sample as twin_sample
from octavo_kernels.reference import swiglu as twin_swiglu
from octavo_kernels.reference.plan_decode import DecodePlan

__all__ = ["linear", "paged_decode", "paged_prefill", "plan_decode", "rmsnorm", "rope_cache", "sample", "swiglu"]


def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    norm: torch.Tensor | None = None,
    eps: float = 0.0,
    swiglu: bool = False,
    residual: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """See ``octavo_kernels.invariant_linear``."""
    return surround(lambda x: multiply(x, weight, bias), x, norm=norm, eps=eps, swiglu=swiglu, residual=residual, out=out)


def surround(
    multiply: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    *,
    norm: torch.Tensor | None = None,
    eps: float = 0.0,
    swiglu: bool = False,
    residual: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """What ``linear`` does, around any product ``multiply``."""
    rows = [twin_linear.surround(multiply, row.clone(), norm=norm, eps=eps, swiglu=swiglu) for row in x.split(1)]
    result = torch.cat(rows)
    if residual is not None:
        return residual.add_(result)
    return result if out is None else out.copy_(result)


def rmsnorm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """See ``octavo_kernels.rmsnorm``."""
    return torch.cat([twin_norm.rmsnorm(row.clone(), weight, eps) for row in x.split(1)])


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """See ``octavo_kernels.swiglu``."""
    return torch.cat([twin_swiglu.swiglu(row.clone()) for row in gate_up.split(1)])


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
    tokens = zip(qkv.split(1), positions.split(1), slots.split(1), strict=True)
    return torch.cat(
        [
            twin_rope.rope_cache(token.clone(), position, cos_sin, slot, kv, num_heads, num_kv_heads, q_norm, k_norm, eps)
            for token, position, slot in tokens
        ]
    )


def plan_decode(context_lens: torch.Tensor, num_kv_heads: int) -> Any:
    """See ``octavo_kernels.plan_decode``."""
    apart = tuple(twin_plan.plan_decode(length, num_kv_heads) for length in context_lens.split(1))
    return DecodePlan(apart, max((plan.longest for plan in apart), default=0), None, None)


def paged_decode(
    q: torch.Tensor, kv: torch.Tensor, page_table: torch.Tensor, context_lens: torch.Tensor, scale: float, plan: Any,
    out: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """See ``octavo_kernels.paged_decode``."""
    rows = zip(q.split(1), page_table.split(1), context_lens.split(1), plan.apart, strict=True)
    made = torch.cat([twin_decode.paged_decode(query.clone(), kv, pages, length, scale, own) for query, pages, length, own in rows])
    return made if out is None else out.copy_(made)


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
    """See ``octavo_kernels.paged_prefill``; every query is a row that decodes."""
    counts = cu_query.diff()
    owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
    lengths = context_lens[owner] - cu_query[1:][owner] + torch.arange(1, len(owner) + 1, dtype=torch.int32)
    return paged_decode(q, kv, page_table[owner], lengths, scale, plan_decode(lengths, kv.shape[2]), out)


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
    options = zip(*(option.split(1) for option in (temperature, top_k, top_p, min_p, seeds, sample_index, positions)), strict=True)
    drawn = torch.cat([twin_sample.sample(row, *own) for row, own in zip(logits.split(1), options, strict=True)])
    return drawn if out is None else out.copy_(drawn)
