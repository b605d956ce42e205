"""``Work``: what a model must read and multiply for a load, and how long that takes at the least. Knows no engine and no clock.

The floor takes every step's linears at the slower of reading their weights and multiplying them, adds the decoding rows' keys
and values at the copy rate and the prompts' attention at the matrix rate. The head is computed for each sequence's last token only.
"""

from typing import NamedTuple

from octavo.bench.phases import Phase
from octavo.models.shape import ModelShape


class Ceilings(NamedTuple):
    """What a device was seen to do: bytes copied (read plus written) and floating-point operations, per second."""

    copy: float
    matmul: float


class Limits(NamedTuple):
    """How many rows and how many tokens one step may compute."""

    rows: int
    tokens: int


class Work:
    """A decoder's bytes and operations. ``weight_bytes``: read by every step, all but the embedding.

    ``token_flops`` are those of a token's linears in all layers, ``head_flops`` of one row of logits, ``pair_flops`` of one
    query and one key in all layers and heads. ``cache_bytes``: one token's keys and values in all layers.
    """

    def __init__(self, shape: ModelShape, weight_itemsize: int, cache_itemsize: int) -> None:
        """``weight_itemsize`` and ``cache_itemsize``: bytes of one number of the weights and of the KV cache."""
        sizes = {name: _product(size) for name, size in shape.tensors().items()}
        embedding = sizes.pop("model.embed_tokens.weight")
        head = sizes.setdefault("lm_head.weight", embedding)
        self.weight_bytes = sum(sizes.values()) * weight_itemsize
        self.token_flops = 2 * (sum(size for name, size in sizes.items() if name.endswith("_proj.weight")))
        self.head_flops = 2 * head
        self.pair_flops = 4 * shape.num_layers * shape.num_heads * shape.head_dim
        self.cache_bytes = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * cache_itemsize

    def flops(self, phase: Phase) -> float:
        """All that the phase has to multiply."""
        return self._prefill_flops(phase) + self._decode_flops(phase)

    def decode_flops(self, tokens: int, context_tokens: int) -> float:
        """Of ``tokens`` decoded ones that attend to ``context_tokens`` in sum."""
        return tokens * (self.token_flops + self.head_flops) + context_tokens * self.pair_flops

    def bytes(self, phase: Phase, steps: int) -> float:
        """What ``steps`` steps of the phase read: the weights each, and the decoding rows' keys and values."""
        return self.steady_bytes(steps, _decoded_context(phase))

    def steady_bytes(self, steps: int, context_tokens: int) -> float:
        """What ``steps`` steps read whose decoding rows attend to ``context_tokens`` in sum."""
        return steps * self.weight_bytes + context_tokens * self.cache_bytes

    def floor(self, phase: Phase, ceilings: Ceilings, limits: Limits) -> float:
        """Seconds that the phase takes at the least."""
        weights = self.weight_bytes / ceilings.copy
        chunks = -(-phase.requests * phase.input_len // limits.tokens)
        prefill = max(self._prefill_flops(phase) / ceilings.matmul, chunks * weights)
        rows = min(phase.requests, limits.rows)
        steps = -(-phase.requests // limits.rows) * (phase.output_len - 1)
        linears = max(weights, rows * (self.token_flops + self.head_flops) / ceilings.matmul)
        return prefill + steps * linears + _decoded_context(phase) * self.cache_bytes / ceilings.copy

    def _prefill_flops(self, phase: Phase) -> float:
        length = phase.input_len
        one = length * self.token_flops + self.head_flops + length * (length + 1) / 2 * self.pair_flops
        return phase.requests * one

    def _decode_flops(self, phase: Phase) -> float:
        return self.decode_flops(phase.requests * (phase.output_len - 1), _decoded_context(phase))


def _decoded_context(phase: Phase) -> int:
    """The contexts of all decoded tokens, themselves included, in sum: input_len + 1, ... input_len + output_len - 1 each."""
    decoded = phase.output_len - 1
    return phase.requests * (decoded * phase.input_len + decoded * phase.output_len // 2)


def _product(size: tuple[int, ...]) -> int:
    product = 1
    for length in size:
        product *= length
    return product
