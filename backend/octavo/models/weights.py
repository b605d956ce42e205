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

from octavo.errors import LoadFailed, Problems

Shape = tuple[int, ...]

FLOATS = {"BF16", "F16", "F32", "F64"}
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
INDEX = "model.safetensors.index.json"
NAMED_IN_MESSAGES = 3


class Checkpoint(Protocol):
    """Tensors under the names that Hugging Face checkpoints use."""

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Every tensor that there is, known or not."""

    def refusal(self, name: str) -> str | None:
        """Why this tensor cannot be read, by what the file's head says of it; None if it can."""

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """One tensor, rounded to ``dtype``. Any thread may call. Raises ``LoadFailed`` if it cannot be read."""


def check_complete(found: Checkpoint, expected: Mapping[str, Shape]) -> None:
    """Raise ``LoadFailed`` unless ``found`` holds what ``expected`` does, in the same shapes, and nothing that would be ignored.

    Two exceptions: old Llama checkpoints store RoPE's frequencies, and tied ones may store the head once more.
    """
    shapes, problems = found.shapes, Problems()
    spare = {name for name in shapes if name.endswith("rotary_emb.inv_freq")} | {"lm_head.weight"}
    problems.add(*_complaint("lack", "", sorted(expected.keys() - shapes.keys())))
    problems.add(*_complaint("hold", " that the model's config has no place for", sorted(shapes.keys() - expected.keys() - spare)))
    there = {name: shape for name, shape in expected.items() if name in shapes}
    wrong = [
        f"The tensor '{name}' has shape {list(shapes[name])}, but the model's config makes it {list(shape)}."
        for name, shape in there.items()
        if tuple(shapes[name]) != shape
    ]
    # One of each kind stands for all others: a checkpoint of another model has hundreds.
    problems.add(*wrong[:1], *[refusal for name in there if (refusal := found.refusal(name))][:1])
    problems.check()


def _complaint(verb: str, why: str, names: list[str]) -> list[str]:
    if not names:
        return []
    some = ", ".join(f"'{name}'" for name in names[:NAMED_IN_MESSAGES])
    more = f" and {len(names) - NAMED_IN_MESSAGES} more" if len(names) > NAMED_IN_MESSAGES else ""
    return [f"The weights {verb} {len(names)} tensor{'s' * (len(names) > 1)}{why}: {some}{more}."]


class SafetensorsCheckpoint:
    """A folder's safetensors, sharded or not, mapped into memory."""

    def __init__(self, folder: Path) -> None:
        """Read every file's head. Raises ``LoadFailed``."""
        self._files: dict[str, Any] = {}
        self._file_of: dict[str, str] = {}
        self._kinds: dict[str, str] = {}
        self.shapes: dict[str, Shape] = {}
        for name in _file_names(folder):
            self._open(folder / name)

    def _open(self, path: Path) -> None:
        try:
            file = self._files[path.name] = safe_open(path, framework="pt")
            for name in file.keys():  # noqa: SIM118 (it is no dictionary)
                self._file_of[name] = path.name
                tensor = file.get_slice(name)
                self.shapes[name], self._kinds[name] = tuple(tensor.get_shape()), tensor.get_dtype()
        except FileNotFoundError as error:
            raise LoadFailed(f"The weights' index names the file '{path.name}', which does not exist.") from error
        except (SafetensorError, OSError) as error:
            raise LoadFailed(f"The file '{path.name}' is not a whole safetensors file.") from error

    def refusal(self, name: str) -> str | None:
        """See ``Checkpoint``: what is not in floating point is quantised in a way that is not known here."""
        kind = self._kinds[name]
        if kind in FLOATS:
            return None
        return f"The tensor '{name}' is stored as {kind}, which is not supported; use bfloat16, float16 or float32."

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """See ``Checkpoint``; a tensor that is stored in ``dtype`` is not copied."""
        if refusal := self.refusal(name):
            raise LoadFailed(refusal)
        return self._files[self._file_of[name]].get_tensor(name).to(dtype)


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

    def refusal(self, name: str) -> str | None:
        """See ``Checkpoint``; nothing is refused."""
        return None

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """See ``Checkpoint``; the tensor is on the device."""
        empty = torch.empty(self.shapes[name], dtype=dtype, device=self._device)
        if self._device.type == "meta":
            return empty
        if name.endswith("norm.weight"):
            return empty.fill_(1)
        source = torch.Generator(self._device).manual_seed(self._seed + zlib.crc32(name.encode()))
        return empty.normal_(0, 0.02, generator=source)
