"""``paged_prefill`` on a CPU goes by no plan. Knows no scheduler."""

from typing import Any

import torch


def plan_prefill(
    cu_query: torch.Tensor, context_lens: torch.Tensor, tokens: int, num_heads: int, num_kv_heads: int, head_dim: int
) -> Any:
    """See ``octavo_kernels.plan_prefill``."""
    return None
