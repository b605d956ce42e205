"""A GGUF file as a checkpoint: its metadata as a Hugging Face config, its tensors dequantised piece by piece. Knows no decoder."""

import math
from typing import Any

import gguf
import numpy as np
import torch

from octavo.errors import LoadFailed
from octavo.models.gguf_file import GgufFile, Value
from octavo.models.weights import Shape

# llama.cpp calls Mistral "llama" too: the tensors and the arithmetic are the same.
ARCHITECTURES = ("llama", "qwen2", "qwen3")
CONTROL_TOKEN = 3
SLICE_ELEMENTS = 2**21
# Chat models end a turn by one of these whether or not the file says so; llama.cpp stops at them as well.
ENDS = {"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "</s>"}

_KEYS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "sliding_window": "attention.sliding_window",
}
_ROPE_KEYS = {"rope_type": "type", "factor": "factor", "original_max_position_embeddings": "original_context_length"}
_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def config_of(file: GgufFile) -> dict[str, Any]:
    """The Hugging Face config that the file's metadata amount to. Raises ``LoadFailed`` for an architecture that is not served."""
    meta = file.metadata
    arch = meta.get("general.architecture")
    if arch not in ARCHITECTURES:
        raise LoadFailed(f"The GGUF architecture '{arch}' is not supported; supported are {', '.join(ARCHITECTURES)}.")
    if meta.get(f"{arch}.expert_count"):
        raise LoadFailed("A GGUF file with experts (mixture of experts) is not supported.")
    config = {name: meta[f"{arch}.{key}"] for name, key in _KEYS.items() if f"{arch}.{key}" in meta}
    embedding = file.tensors.get("token_embd.weight")
    return config | {
        "model_type": arch,
        "vocab_size": embedding.shape[0] if embedding else None,
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in file.tensors,
        "use_sliding_window": "sliding_window" in config,
        "rope_parameters": _rope_parameters(file, f"{arch}.rope."),
        "eos_token_id": _ends(meta),
    }


def _rope_parameters(file: GgufFile, prefix: str) -> dict[str, Any]:
    if "rope_freqs.weight" in file.tensors:
        factors = _dequantised("rope_freqs.weight", *_rows(file, "rope_freqs.weight"))
        return {"rope_type": "divided", "factors": factors.ravel().tolist()}
    scaling = {name: file.metadata.get(f"{prefix}scaling.{key}") for name, key in _ROPE_KEYS.items()}
    return {name: value for name, value in scaling.items() if value not in (None, "none")}


def _ends(meta: dict[str, Value]) -> list[int]:
    named = [meta.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    tokens, kinds = meta.get("tokenizer.ggml.tokens"), meta.get("tokenizer.ggml.token_type")
    known: list[int] = []
    if isinstance(tokens, list) and isinstance(kinds, list):
        known = [i for i, kind in enumerate(kinds[: len(tokens)]) if kind == CONTROL_TOKEN and tokens[i] in ENDS]
    return list(dict.fromkeys([i for i in named if isinstance(i, int)] + known))


class GgufCheckpoint:
    """A GGUF file's tensors under their Hugging Face names; one is dequantised when it is read."""

    def __init__(self, file: GgufFile) -> None:
        """Raises ``LoadFailed`` if the file is shorter than its table of tensors says, or holds a type that is not known."""
        self._file = file
        self._name_of = {_hf_name(name): name for name in file.tensors if name != "rope_freqs.weight"}
        self.shapes: dict[str, Shape] = {ours: file.tensors[name].shape for ours, name in self._name_of.items()}
        arch = file.metadata.get("general.architecture")
        self._heads = {
            projection: file.metadata.get(f"llama.attention.{key}")
            for projection, key in (("attn_q", "head_count"), ("attn_k", "head_count_kv"))
            if arch == "llama"
        }
        for name in file.tensors:
            _rows(file, name)

    def refusal(self, name: str) -> str | None:
        """See ``Checkpoint``: the library knows more quantisations than it can undo."""
        theirs = self._name_of[name]
        rows, kind = _rows(self._file, theirs)
        try:
            _dequantised(theirs, np.zeros((1, rows.shape[-1]), np.uint8), kind)
        except LoadFailed as error:
            return str(error)
        return None

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """See ``Checkpoint``; goes through the tensor in slices, so that little of it is in float32 at any time."""
        theirs = self._name_of[name]
        rows, kind = _rows(self._file, theirs)
        heads = self._heads.get(theirs.split(".")[-2])
        if isinstance(heads, int):
            rows = _halves_first(rows, heads)
        whole = torch.empty(self.shapes[name], dtype=dtype)
        step = max(1, SLICE_ELEMENTS * len(whole) // max(1, whole.numel()))
        for start in range(0, len(whole), step):
            wide = _dequantised(theirs, rows[start : start + step], kind)
            whole[start : start + step] = torch.from_numpy(wide).view(-1, *whole.shape[1:])
        return whole


def _hf_name(name: str) -> str:
    """Tensors that we do not know keep their name, and are complained of as unexpected."""
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in _BLOCK:
        return f"model.layers.{parts[1]}.{_BLOCK[parts[2]]}.{parts[3]}"
    return _TOP.get(name, name)


def _halves_first(rows: np.ndarray, heads: int) -> np.ndarray:
    """Undo the conversion of Llama's queries and keys: GGUF has the two of a rotated pair as neighbours, we have two halves."""
    return rows.reshape(heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def _dequantised(name: str, rows: np.ndarray, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    try:
        return gguf.dequantize(rows, kind).copy()  # of an unquantised tensor it is a view of the file
    except NotImplementedError as error:
        raise LoadFailed(f"The tensor '{name}' is quantised as {kind.name}, which is not supported.") from error


def _rows(file: GgufFile, name: str) -> tuple[np.ndarray, gguf.GGMLQuantizationType]:
    """The tensor's bytes, a row of it a row of them (a vector has rows of one block), and how they are quantised."""
    shape, number, offset = file.tensors[name]
    if number not in iter(gguf.GGMLQuantizationType):
        raise LoadFailed(f"The tensor '{name}' has a quantisation that is not known.")
    kind = gguf.GGMLQuantizationType(number)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    if not shape or shape[-1] % block:
        raise LoadFailed(f"The tensor '{name}' has shape {list(shape)}, which its blocks of {block} do not divide.")
    count = math.prod(shape) // block * size
    if offset + count > len(file.data):
        raise LoadFailed(f"The GGUF file '{file.name}' ends before its tensor '{name}' does; it was not copied whole.")
    width = shape[-1] // block * size if len(shape) > 1 else size
    return np.frombuffer(file.data, np.uint8, count, offset).reshape(-1, width), kind
