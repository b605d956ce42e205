"""``Decoder``: token ids to hidden states to logits, over a paged KV cache. One body for every family; families are data.

Knows the kernels and ``Linear``; reads no file, keeps no cache and no request.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn.functional import embedding

from octavo.models.attention import AttentionContext
from octavo.models.footprint import weights_bytes
from octavo.models.linear import Linear, Precision
from octavo.models.shape import ModelShape
from octavo_kernels import for_device


class Layer(NamedTuple):
    """One layer's weights. Norms are in the dtype of the activations; the head norms are None for families without them."""

    input_norm: torch.Tensor
    qkv: Linear
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    out: Linear
    ffn_norm: torch.Tensor
    gate_up: Linear
    down: Linear


class DecoderWeights(NamedTuple):
    """Everything that was loaded. ``embed`` [V, hidden] is in the dtype of the weights, ``norm`` in that of the activations."""

    embed: torch.Tensor
    layers: list[Layer]
    norm: torch.Tensor
    head: Linear


class Decoder:
    """A loaded model on one device.

    ``dtype``: of hidden states and of the KV cache. ``weights_dtype``: what the weights are rounded to. ``max_len``: tokens that
    a request may come to have. ``weights_bytes``: what all weights take.
    """

    def __init__(self, shape: ModelShape, weights: DecoderWeights, precision: Precision, device: torch.device) -> None:
        """``shape.max_len`` is the longest context that will be asked for; the RoPE table reaches that far."""
        self.shape = shape
        self.dtype = precision.activations
        self.weights_dtype = precision.weights
        self.max_len = shape.max_len
        self.weights_bytes = weights_bytes(shape, precision)
        self._weights = weights
        self._kernels = for_device(device, precision.invariant)
        self._cos_sin = shape.rope.table(shape.max_len, device)

    @torch.inference_mode()
    def forward(self, token_ids: torch.Tensor, attn: AttentionContext, kv: Sequence[torch.Tensor]) -> torch.Tensor:
        """Hidden states [T, hidden], to be given to ``logits``, of ``token_ids`` int64 [T].

        ``kv``: one [num_pages, 2, num_kv_heads, page_size, head_dim] per layer in ``dtype``; the tokens' keys and values are
        written into it. The results of this and of ``logits`` are inference tensors.
        """
        weights, eps = self._weights, self.shape.norm_eps
        attend = attn.attend(self._kernels, self.shape)
        hidden = embedding(token_ids, weights.embed).to(self.dtype)
        for layer, cache in zip(weights.layers, kv, strict=True):
            q = self._rope_cache(layer, layer.qkv(hidden, norm=layer.input_norm, eps=eps), attn, cache)
            layer.out(attend(q, cache).flatten(1), residual=hidden)
            fed = layer.gate_up(hidden, norm=layer.ffn_norm, eps=eps, swiglu=True)
            layer.down(fed, residual=hidden)
        return hidden

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """float32 [R, vocab] of ``forward``'s hidden states [R, hidden], written to ``out`` if there is one."""
        if out is None:
            out = torch.empty((len(hidden), self.shape.vocab_size), dtype=torch.float32, device=hidden.device)
        return self._weights.head(hidden, norm=self._weights.norm, eps=self.shape.norm_eps, out=out)

    def _rope_cache(self, layer: Layer, qkv: torch.Tensor, attn: AttentionContext, cache: torch.Tensor) -> torch.Tensor:
        shape = self.shape
        return self._kernels.rope_cache(
            qkv, attn.positions, self._cos_sin, attn.slots, cache,
            shape.num_heads, shape.num_kv_heads, layer.q_norm, layer.k_norm, shape.norm_eps,
        )  # fmt: skip
