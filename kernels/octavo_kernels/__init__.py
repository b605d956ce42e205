"""Octavo's kernels: paged attention, RoPE with the cache write, norms, activation, sampling. Knows tensors, no models or servers.

Each kernel is a file here (in the Triton language, for CUDA) with a twin of the same name and signature in ``reference/`` (plain
torch, for the CPU and for tests). ``for_device`` picks one set.

The KV cache of one layer is a tensor ``kv`` of shape [num_pages, 2, num_kv_heads, page_size, head_dim]: index 0 of the second
dimension holds keys, 1 values. The two inner dimensions are contiguous, so a (page, head) tile is one run of memory; the outer
strides are free, so that ``kv`` may be one layer's slice of a pool [page, layer, 2, head, token, dim].
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import torch

from octavo_kernels.reference.decode_inputs import DecodeInputs

__all__ = ["Kernels", "for_device", "most_group"]


class Kernels(NamedTuple):
    """The operations, all for one kind of device."""

    decode_inputs: Callable[..., DecodeInputs]
    linear: Callable[..., torch.Tensor]
    rmsnorm: Callable[..., torch.Tensor]
    rope_cache: Callable[..., torch.Tensor]
    plan_decode: Callable[..., Any]
    plan_prefill: Callable[..., Any]
    paged_decode: Callable[..., torch.Tensor]
    paged_prefill: Callable[..., torch.Tensor]
    swiglu: Callable[..., torch.Tensor]
    penalise: Callable[..., None]
    count_tokens: Callable[..., None]
    apply_mask: Callable[..., None]
    sample: Callable[..., torch.Tensor]


def most_group(dtype: torch.dtype) -> int:
    """How many heads of ``dtype`` may share a KV head on a GPU: as many as a tile of prompt attention has rows."""
    return 32 if dtype == torch.float32 else 64


def for_device(device: torch.device, invariant: bool = False) -> Kernels:
    """The kernels for ``device``: Triton on CUDA, plain torch on a CPU (Triton is then never imported).

    Those for ``meta``, whose tensors have no memory, are CUDA's: see ``precompile``.

    ``invariant``: those of which each row's, and each token's, result is the same bits whatever else is computed with it.
    """
    package = "octavo_kernels" if device.type in {"cuda", "meta"} else "octavo_kernels.reference"
    kernels = Kernels(*(getattr(import_module(f"{package}.{name}"), name) for name in Kernels._fields))
    if not invariant:
        return kernels
    others = import_module(f"{package}.invariant")
    return kernels._replace(**{name: getattr(others, name) for name in others.__all__})
