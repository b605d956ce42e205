"""``load_model``: from an ``EngineConfig`` to a ``Decoder`` on a device. Knows where weights lie; knows no cache and no request."""

import logging
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from octavo.config import EngineConfig, WeightsFormat
from octavo.errors import LoadFailed, Problems
from octavo.models.decoder import Decoder, DecoderWeights, Layer
from octavo.models.hf_config import read_config, shape_of
from octavo.models.linear import Linear, Precision, make_linear, precision_for
from octavo.models.progress import track
from octavo.models.shape import ModelShape
from octavo.models.weights import Checkpoint, DummyCheckpoint, SafetensorsCheckpoint, check_complete
from octavo_kernels import most_group

log = logging.getLogger(__name__)

DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "half": torch.float16,
    "float32": torch.float32,
    "float": torch.float32,
}


def load_model(config: EngineConfig, device: torch.device) -> Decoder:
    """Load what ``config.weights`` names. Raises ``LoadFailed`` if it is not whole, not right or not of a family that is served."""
    (shape, precision), checkpoint = _look(config, device)
    decoder = Decoder(shape, _Builder(shape, checkpoint, precision, device).build(config.name), precision, device)
    log.info("%s: %s, %d layers, %.1f MB of weights", config.name, shape.family, shape.num_layers, decoder.weights_bytes / 1e6)
    return decoder


class Description(NamedTuple):
    """What a model is, and how a device computes it."""

    shape: ModelShape
    precision: Precision


def describe_model(config: EngineConfig, device: torch.device) -> Description:
    """The model as it would be on ``device``, by the heads of its files alone.

    Raises ``LoadFailed`` for all that is wrong with them, as ``load_model`` does.
    """
    return _look(config, device)[0]


def load_outline(config: EngineConfig) -> Decoder:
    """The model as a GPU would have it, in tensors without memory (``meta``), and with one layer: it stands for all others."""
    path, device = Path(config.weights), torch.device("meta")
    found = _open_gguf(path)[0] if path.suffix == ".gguf" else read_config(path)
    shape, precision = _resolve(config, shape_of(found | config.hf_overrides), device)
    builder = _Builder(shape, _dummy(config, shape, device), precision, device)
    return Decoder(shape, builder.whole([builder.layer(0)]), precision, device)


def _look(config: EngineConfig, device: torch.device) -> tuple[Description, Checkpoint]:
    """What the heads of the files say, and where the weights are to be read."""
    path, found = Path(config.weights), Problems()
    described, checkpoint = _open_gguf(path) if path.suffix == ".gguf" else (read_config(path), None)
    shape = shape_of(described | config.hf_overrides)
    with found.catch():
        if checkpoint is None:
            dummy = config.weights_format == WeightsFormat.DUMMY
            checkpoint = _dummy(config, shape, device) if dummy else SafetensorsCheckpoint(path)
        check_complete(checkpoint, shape.tensors())
    with found.catch():
        description = _resolve(config, shape, device)
    found.check()
    assert checkpoint is not None
    return description, checkpoint


def _resolve(config: EngineConfig, shape: ModelShape, device: torch.device) -> Description:
    found = Problems()
    with found.catch():
        shape = replace(shape, max_len=_max_len(config, shape))
    with found.catch():
        dtype = _dtype(config, shape)
        _check_group(shape, dtype, device)
    found.check()
    return Description(shape, precision_for(dtype, device, config.deterministic))


def _open_gguf(path: Path) -> tuple[dict[str, Any], Checkpoint]:
    """The config that the file's metadata make, and its tensors."""
    from octavo.models.gguf import GgufCheckpoint, config_of  # they import much that other weights do not need
    from octavo.models.gguf_file import GgufFile

    file = GgufFile(path)
    return config_of(file), GgufCheckpoint(file)


def _dummy(config: EngineConfig, shape: ModelShape, device: torch.device) -> Checkpoint:
    return DummyCheckpoint(shape.tensors(), config.seed, device)


def _max_len(config: EngineConfig, shape: ModelShape) -> int:
    if config.max_model_len is None:
        return shape.max_len
    if config.max_model_len > shape.max_len:
        raise LoadFailed(f"max_model_len {config.max_model_len} is more than the {shape.max_len} tokens of the model itself.")
    return config.max_model_len


def _check_group(shape: ModelShape, dtype: torch.dtype, device: torch.device) -> None:
    group, most = shape.num_heads // shape.num_kv_heads, most_group(dtype)
    if device.type != "cpu" and group > most:
        name = str(dtype).removeprefix("torch.")
        raise LoadFailed(f"{group} heads of the model share one key-value head; on a GPU at most {most} may in {name}.")


def _dtype(config: EngineConfig, shape: ModelShape) -> torch.dtype:
    name = shape.dtype if config.dtype in (None, "auto") else str(config.dtype)
    if name not in DTYPES:
        raise LoadFailed(f"The dtype '{name}' is not supported; supported are auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


class _Builder:
    """Takes a checkpoint's tensors to the device, layer by layer, each in the form in which it is used."""

    def __init__(self, shape: ModelShape, checkpoint: Checkpoint, precision: Precision, device: torch.device) -> None:
        self._shape = shape
        self._checkpoint = checkpoint
        self._precision = precision
        self._device = device

    def build(self, name: str) -> DecoderWeights:
        return self.whole(track(self._layers(), self._shape.num_layers, f"Loading {name}"))

    def whole(self, layers: Iterable[Layer]) -> DecoderWeights:
        embed = self._weight("model.embed_tokens")
        head = make_linear([embed if self._shape.tied else self._weight("lm_head")], [], self._precision)
        return DecoderWeights(embed, list(layers), self._norm("model.norm"), head)

    def _layers(self) -> Iterator[Layer]:
        # Dequantising and packing run on one core each; the few threads hold a layer's float32 weights each.
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            yield from pool.map(self.layer, range(self._shape.num_layers))

    @torch.inference_mode()
    def layer(self, index: int) -> Layer:
        shape, prefix = self._shape, f"model.layers.{index}."
        attention, ffn = prefix + "self_attn.", prefix + "mlp."
        return Layer(
            input_norm=self._norm(prefix + "input_layernorm"),
            qkv=self._linear(attention + "q_proj", attention + "k_proj", attention + "v_proj", biased=shape.qkv_bias),
            q_norm=self._norm(attention + "q_norm") if shape.qk_norm else None,
            k_norm=self._norm(attention + "k_norm") if shape.qk_norm else None,
            out=self._linear(attention + "o_proj", biased=shape.out_bias),
            ffn_norm=self._norm(prefix + "post_attention_layernorm"),
            gate_up=self._linear(ffn + "gate_proj", ffn + "up_proj", biased=shape.mlp_bias),
            down=self._linear(ffn + "down_proj", biased=shape.mlp_bias),
        )

    def _linear(self, *names: str, biased: bool = False) -> Linear:
        biases = [self._read(f"{name}.bias") for name in names] if biased else []
        return make_linear([self._weight(name) for name in names], biases, self._precision)

    def _norm(self, name: str) -> torch.Tensor:
        return self._read(f"{name}.weight").to(self._precision.activations)

    def _weight(self, name: str) -> torch.Tensor:
        return self._read(f"{name}.weight")

    def _read(self, name: str) -> torch.Tensor:
        return self._checkpoint.read(name, self._precision.weights).to(self._device)
