"""From a Hugging Face config to a ``ModelShape``; what is not served is refused by name. Reads JSON, imports nothing it names."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from octavo.errors import LoadFailed
from octavo.models.rope import Rope, read_rope
from octavo.models.shape import FAMILIES, Family, ModelShape

log = logging.getLogger(__name__)

Config = Mapping[str, Any]

# No model comes near these; a number beyond them would be loaded for hours or fail in some library's words.
LARGEST_SIZE = 2**31 - 1
MOST_LAYERS = 1024


def read_config(folder: Path) -> dict[str, Any]:
    """The snapshot's ``config.json``, its end-of-sequence tokens joined by those of ``generation_config.json``."""
    config = _read_json(folder / "config.json")
    if config is None:
        raise LoadFailed(f"The folder '{folder.name}' has no config.json, so it is not a Hugging Face snapshot.")
    generation = _read_json(folder / "generation_config.json") or {}
    ends = [*_ids(generation.get("eos_token_id")), *_ids(config.get("eos_token_id"))]
    return config | {"eos_token_id": list(dict.fromkeys(ends))}


def shape_of(config: Config) -> ModelShape:
    """What ``config`` describes. Raises ``LoadFailed`` for a family or a feature that is not served, or a value that is wrong."""
    family = _family(config)
    _refuse(config)
    hidden, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
    kv_heads = _size(config, "num_key_value_heads", heads)
    head_dim = _size(config, "head_dim", family.head_dim or hidden // heads)
    if heads % kv_heads or head_dim % 2:
        raise LoadFailed(f"{heads} heads of {head_dim} dimensions cannot share {kv_heads} key-value heads.")
    rope = _rope(config, head_dim)
    return ModelShape(
        family=config["model_type"],
        vocab_size=_size(config, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=_size(config, "intermediate_size"),
        num_layers=_size(config, "num_hidden_layers", most=MOST_LAYERS),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        norm_eps=_norm_eps(config),
        rope=rope,
        max_len=_max_len(config, rope),
        tied=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=_switch(config, family.qkv_bias),
        out_bias=_switch(config, family.out_bias),
        mlp_bias=_switch(config, family.mlp_bias),
        qk_norm=family.qk_norm,
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "bfloat16"),
        eos_token_ids=tuple(token for token in _ids(config.get("eos_token_id")) if 0 <= token < _size(config, "vocab_size")),
    )


def _family(config: Config) -> Family:
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise LoadFailed(f"The model type '{kind}' is not supported; supported are {', '.join(FAMILIES)}.")
    for name in _list(config.get("architectures")):
        if not str(name).endswith("ForCausalLM"):
            raise LoadFailed(f"The architecture '{name}' is not supported; it must be a causal language model.")
    return FAMILIES[kind]


def _refuse(config: Config) -> None:
    if quantisation := config.get("quantization_config"):
        method = quantisation.get("quant_method", "unknown") if isinstance(quantisation, dict) else "unknown"
        raise LoadFailed(f"Quantised safetensors (here '{method}') are not supported; use the unquantised weights or a GGUF file.")
    activation = config.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise LoadFailed(f"The activation '{activation}' is not supported; supported is silu.")


def _rope(config: Config, head_dim: int) -> Rope:
    """Transformers 5 keeps all in ``rope_parameters``; older configs have ``rope_theta`` and ``rope_scaling`` side by side."""
    parameters = {"rope_theta": config.get("rope_theta"), "partial_rotary_factor": config.get("partial_rotary_factor")}
    for key in ("rope_scaling", "rope_parameters"):
        if not isinstance(config.get(key) or {}, dict):
            raise LoadFailed(f"The model's config has a '{key}' that is not an object.")
        parameters |= config.get(key) or {}
    return read_rope(parameters, head_dim, _size(config, "max_position_embeddings", 2048))


def _max_len(config: Config, rope: Rope) -> int:
    """Within its window, windowed attention is plain attention: a longer request is what is not served."""
    windowed = config.get("sliding_window") and config.get("use_sliding_window", config["model_type"] == "mistral")
    window = _size(config, "sliding_window") if windowed else rope.max_len
    if window < rope.max_len:
        log.warning("The model attends to a sliding window of %d tokens; longer requests are not served yet.", window)
    return min(window, rope.max_len)


def _size(config: Config, key: str, default: int | None = None, most: int = LARGEST_SIZE) -> int:
    value = config.get(key)
    value = default if value is None else value
    if value is None:
        raise LoadFailed(f"The model's config lacks '{key}'.")
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise LoadFailed(f"The model's config has '{key}' {value!r}, which must be a whole number from 1 to {most}.")
    return value


def _norm_eps(config: Config) -> float:
    value = config.get("rms_norm_eps", 1e-6)
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise LoadFailed(f"The model's config has 'rms_norm_eps' {value!r}, which must be a small positive number.")
    return float(value)


def _switch(config: Config, setting: bool | str) -> bool:
    return bool(config.get(setting, False)) if isinstance(setting, str) else setting


def _ids(value: object) -> list[int]:
    return [item for item in ([value] if isinstance(value, int) else _list(value)) if isinstance(item, int)]


def _list(value: object) -> list:
    return value if isinstance(value, list) else []


def _read_json(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise LoadFailed(f"The file '{file.name}' is not valid JSON.") from error
    if not isinstance(content, dict):
        raise LoadFailed(f"The file '{file.name}' must hold a JSON object.")
    return content
