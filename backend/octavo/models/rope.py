"""``Rope``: rotary position embedding as frequencies, and the table of cosines and sines that the kernels read. Knows no model.

Every number is computed in float32 and in the order of ``transformers.modeling_rope_utils``, so that logits agree.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from octavo.errors import LoadFailed

Parameters = Mapping[str, Any]


class Rope(NamedTuple):
    """``frequencies``: radians per position of each rotated pair. ``amplitude`` scales cosines and sines (YaRN).

    ``max_len``: the positions that these frequencies are good for.
    """

    frequencies: tuple[float, ...]
    amplitude: float
    max_len: int

    def table(self, length: int, device: torch.device) -> torch.Tensor:
        """float32 [length, 2 * pairs]: the cosines of each position, then its sines."""
        if device.type == "meta":
            return torch.empty((length, 2 * len(self.frequencies)), device=device)
        angles = torch.arange(length).float()[:, None] * torch.tensor(self.frequencies, dtype=torch.float32)
        return torch.cat([angles.cos() * self.amplitude, angles.sin() * self.amplitude], dim=1).to(device)


def read_rope(parameters: Parameters, head_dim: int, max_position: int) -> Rope:
    """The embedding that ``rope_parameters`` of a model's config describe. Raises ``LoadFailed`` for a kind that is not served.

    ``max_position``: the config's ``max_position_embeddings``. Unlike Transformers, which leaves it to the user, ``linear`` and
    ``yarn`` extend the length by their factor, as vLLM does.
    """
    kind = str(parameters.get("rope_type") or parameters.get("type") or "default")
    if kind not in _KINDS:
        raise LoadFailed(f"The RoPE scaling '{kind}' is not supported; supported are {', '.join(_KINDS)}.")
    if parameters.get("partial_rotary_factor") not in (None, 1.0):
        raise LoadFailed("A partial_rotary_factor other than 1 is not supported.")
    try:
        rope = _KINDS[kind](parameters, _plain(parameters, head_dim), max_position)
    except KeyError as error:
        raise LoadFailed(f"The RoPE scaling '{kind}' needs {error.args[0]}, which the model's config lacks.") from error
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise LoadFailed(f"The RoPE scaling '{kind}' of the model's config has a value that cannot be right.") from error
    if rope.max_len < 1 or not all(map(math.isfinite, (*rope.frequencies, rope.amplitude))):
        raise LoadFailed(f"The RoPE scaling '{kind}' of the model's config has a value that cannot be right.")
    return rope


def _plain(parameters: Parameters, head_dim: int) -> torch.Tensor:
    base = parameters.get("rope_theta") or 10000.0
    return 1.0 / (base ** (torch.arange(0, head_dim, 2, dtype=torch.float) / head_dim))


def _rope(frequencies: torch.Tensor, max_len: float, amplitude: float = 1.0) -> Rope:
    return Rope(tuple(frequencies.tolist()), amplitude, int(max_len))


def _default(_: Parameters, plain: torch.Tensor, max_position: int) -> Rope:
    return _rope(plain, max_position)


def _linear(parameters: Parameters, plain: torch.Tensor, max_position: int) -> Rope:
    factor = float(parameters["factor"])
    return _rope(plain / factor, max_position * factor)


def _llama3(parameters: Parameters, plain: torch.Tensor, max_position: int) -> Rope:
    """Llama 3.1: short waves stay, long ones are stretched by ``factor``, those between change over smoothly."""
    factor, low, high = (float(parameters[name]) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    trained = parameters.get("original_max_position_embeddings") or max_position
    wavelength = 2 * math.pi / plain
    stretched = torch.where(wavelength > trained / low, plain / factor, plain)
    smooth = (trained / wavelength - low) / (high - low)
    between = (wavelength >= trained / high) & (wavelength <= trained / low)
    return _rope(torch.where(between, (1 - smooth) * stretched / factor + smooth * stretched, stretched), max_position)


def _yarn(parameters: Parameters, plain: torch.Tensor, max_position: int) -> Rope:
    """YaRN (arXiv 2309.00071): a ramp from plain frequencies to stretched ones, and a larger amplitude."""
    trained = parameters.get("original_max_position_embeddings") or max_position
    factor = float(parameters.get("factor") or max_position / trained)
    dim, base = 2 * len(plain), parameters.get("rope_theta") or 10000.0

    def pair_of(rotations: float) -> float:
        return (dim * math.log(trained / (rotations * 2 * math.pi))) / (2 * math.log(base))

    low, high = pair_of(parameters.get("beta_fast") or 32), pair_of(parameters.get("beta_slow") or 1)
    if parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low if high != low else 0.001)).clamp(0, 1)
    # The complement is taken twice, as Transformers does: 1 - (1 - ramp) is not ramp in float32.
    kept = 1 - ramp
    powers = base ** (torch.arange(0, dim, 2).float() / dim)
    frequencies = 1.0 / (factor * powers) * (1 - kept) + 1.0 / powers * kept
    return _rope(frequencies, max(max_position, trained * factor), _yarn_amplitude(parameters, factor))


def _yarn_amplitude(parameters: Parameters, factor: float) -> float:
    if parameters.get("attention_factor") is not None:
        return float(parameters["attention_factor"])

    def scaled(by: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1.0

    numerator, denominator = parameters.get("mscale"), parameters.get("mscale_all_dim")
    return scaled(numerator) / scaled(denominator) if numerator and denominator else scaled(1)


def _divided(parameters: Parameters, plain: torch.Tensor, max_position: int) -> Rope:
    """GGUF's form of Llama 3's scaling: one divisor per pair, computed by whoever converted the model."""
    return _rope(plain / torch.tensor(parameters["factors"], dtype=torch.float32), max_position)


# Up to max_position_embeddings, the dynamic scaling is none at all; beyond that it would change the keys already cached.
_KINDS: dict[str, Callable[[Parameters, torch.Tensor, int], Rope]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _default,
    "llama3": _llama3,
    "yarn": _yarn,
    "divided": _divided,
}
