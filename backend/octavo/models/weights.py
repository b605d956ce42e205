"""``Checkpoint``: named tensors that a decoder is built from, out of safetensors or out of nowhere. Knows no decoder.

Weights are read, never run: pickled files (``.bin``, ``.pt``) are refused.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open

from octavo.errors import LoadFailed

Shape = tuple[int, ...]

FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
INDEX = "model.safetensors.index.json"
NAMED_IN_MESSAGES = 3


class Checkpoint(Protocol):
    """Tensors under the names that Hugging Face checkpoints use."""

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Every tensor that there is, known or not."""

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """One tensor, rounded to ``dtype``. Any thread may call. Raises ``LoadFailed`` if it is not stored in floating point."""


def check_complete(found: Mapping[str, Shape], expected: Mapping[str, Shape]) -> None:
    """Raise ``LoadFailed`` unless ``found`` holds what ``expected`` does, in the same shapes, and nothing that would be ignored.

    Two exceptions: old Llama checkpoints store RoPE's frequencies, and tied ones may store the head once more.
    """
    spare = {name for name in found if name.endswith("rotary_emb.inv_freq")} | {"lm_head.weight"}
    _complain("lack", "", sorted(expected.keys() - found.keys()))
    _complain("hold", " that the model's config has no place for", sorted(found.keys() - expected.keys() - spare))
    for name, shape in expected.items():
        if tuple(found[name]) != shape:
            raise LoadFailed(f"The tensor '{name}' has shape {list(found[name])}, but the model's config makes it {list(shape)}.")


def _complain(verb: str, why: str, names: list[str]) -> None:
    if names:
        some = ", ".join(f"'{name}'" for name in names[:NAMED_IN_MESSAGES])
        more = f" and {len(names) - NAMED_IN_MESSAGES} more" if len(names) > NAMED_IN_MESSAGES else ""
        raise LoadFailed(f"The weights {verb} {len(names)} tensor{'s' * (len(names) > 1)}{why}: {some}{more}.")


class SafetensorsCheckpoint:
    """A folder's safetensors, sharded or not, mapped into memory."""

    def __init__(self, folder: Path) -> None:
        """Read every file's head. Raises ``LoadFailed``."""
        self._files: dict[str, Any] = {}
        self._file_of: dict[str, str] = {}
        self.shapes: dict[str, Shape] = {}
        for name in _file_names(folder):
            self._open(folder / name)

    def _open(self, path: Path) -> None:
        try:
            file = self._files[path.name] = safe_open(path, framework="pt")
            for name in file.keys():  # noqa: SIM118 (it is no dictionary)
                self._file_of[name] = path.name
                self.shapes[name] = tuple(file.get_slice(name).get_shape())
        except FileNotFoundError as error:
            raise LoadFailed(f"The weights' index names the file '{path.name}', which does not exist.") from error
        except (SafetensorError, OSError) as error:
            raise LoadFailed(f"The file '{path.name}' is not a whole safetensors file.") from error

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """See ``Checkpoint``; a tensor that is stored in ``dtype`` is not copied."""
        tensor = self._files[self._file_of[name]].get_tensor(name)
        if tensor.dtype not in FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise LoadFailed(f"The tensor '{name}' is stored as {kind}, which is not supported; use bfloat16, float16 or float32.")
        return tensor.to(dtype)


def _file_names(folder: Path) -> list[str]:
    if (folder / INDEX).is_file():
        return _indexed(folder / INDEX)
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    if names:
        return names
    if any(path.suffix in PICKLED for path in folder.iterdir()):
        raise LoadFailed(
            f"The folder '{folder.name}' holds pickled weights only, which could run code when they are read; "
            "convert them to safetensors."
        )
    raise LoadFailed(f"The folder '{folder.name}' holds no safetensors file.")


def _indexed(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        if all(Path(name).name == name for name in names):
            return names
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LoadFailed(f"The file '{index.name}' is not an index of safetensors files.") from error
    raise LoadFailed(f"The file '{index.name}' names files outside of its folder.")


class DummyCheckpoint:
    """Small random weights, the same for the same seed and device; for measuring speed without a download."""

    def __init__(self, shapes: Mapping[str, Shape], seed: int, device: torch.device) -> None:
        """Nothing is drawn before it is read."""
        self.shapes = shapes
        self._seed = seed
        self._device = device

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """See ``Checkpoint``; the tensor is on the device."""
        empty = torch.empty(self.shapes[name], dtype=dtype, device=self._device)
        if self._device.type == "meta":
            return empty
        if name.endswith("norm.weight"):
            return empty.fill_(1)
        source = torch.Generator(self._device).manual_seed(self._seed + zlib.crc32(name.encode()))
        return empty.normal_(0, 0.02, generator=source)
