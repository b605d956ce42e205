"""``ModelShape``: everything a decoder must know to be built, and the tensors it is built from. Reads no file.

A family is data: which projections have a bias, whether heads are normalised, and what a config leaves unsaid.
"""

from dataclasses import dataclass
from typing import NamedTuple

from octavo.models.rope import Rope


class Family(NamedTuple):
    """What sets one family of decoders apart. A bias is True, False, or the name of the config's key that says so."""

    qkv_bias: bool | str
    out_bias: bool | str
    mlp_bias: bool | str
    qk_norm: bool = False
    head_dim: int | None = None


FAMILIES = {
    "llama": Family(qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias"),
    "mistral": Family(qkv_bias=False, out_bias=False, mlp_bias=False),
    "qwen2": Family(qkv_bias=True, out_bias=False, mlp_bias=False),
    "qwen3": Family(qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias=False, qk_norm=True, head_dim=128),
}


@dataclass(frozen=True)
class ModelShape:
    """One decoder's dimensions and switches.

    ``max_len``: tokens that a request may come to have, the sliding window counted in. ``tied``: the head is the embedding.
    ``dtype``: the name of the one that the weights were made in. ``eos_token_ids``: every token that ends a text
    and that there is a logit for.
    """

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    rope: Rope
    max_len: int
    tied: bool
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    qk_norm: bool
    dtype: str
    eos_token_ids: tuple[int, ...]

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor that a checkpoint must hold, under the names that Hugging Face checkpoints use."""
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab_size, self.hidden_size)}
        layer = self._layer_tensors()
        for index in range(self.num_layers):
            shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
        shapes["model.norm.weight"] = (self.hidden_size,)
        if not self.tied:
            shapes["lm_head.weight"] = (self.vocab_size, self.hidden_size)
        return shapes

    def _layer_tensors(self) -> dict[str, tuple[int, ...]]:
        hidden, queries, keys = self.hidden_size, self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        projections = [
            ("self_attn.q_proj", queries, hidden, self.qkv_bias),
            ("self_attn.k_proj", keys, hidden, self.qkv_bias),
            ("self_attn.v_proj", keys, hidden, self.qkv_bias),
            ("self_attn.o_proj", hidden, queries, self.out_bias),
            ("mlp.gate_proj", self.intermediate_size, hidden, self.mlp_bias),
            ("mlp.up_proj", self.intermediate_size, hidden, self.mlp_bias),
            ("mlp.down_proj", hidden, self.intermediate_size, self.mlp_bias),
        ]
        shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (rows, columns) for name, rows, columns, _ in projections}
        shapes |= {f"{name}.bias": (rows,) for name, rows, _, biased in projections if biased}
        shapes |= {f"{name}.weight": (hidden,) for name in ("input_layernorm", "post_attention_layernorm")}
        if self.qk_norm:
            shapes |= {f"self_attn.{name}.weight": (self.head_dim,) for name in ("q_norm", "k_norm")}
        return shapes
