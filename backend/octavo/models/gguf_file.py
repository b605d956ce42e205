"""``GgufFile``: the head of a GGUF file, its metadata and its table of tensors. Imports no torch and reads no tensor.

The ``gguf`` package makes a numpy array of every string, which takes seconds for a tokenizer's 100,000; this takes a tenth of one.
Format: the GGUF specification, versions 2 and 3, little-endian.
"""

import math
import mmap
import struct
from pathlib import Path
from typing import NamedTuple

from octavo.errors import LoadFailed

Scalar = bool | int | float | str
Value = Scalar | list[Scalar]

DEFAULT_ALIGNMENT = 32
MAX_DIMS = 4
_STRING = 8
_ARRAY = 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class TensorEntry(NamedTuple):
    """One tensor: ``shape`` outermost first as in torch, ``kind`` a GGML type's number, ``offset`` bytes from the file's start."""

    shape: tuple[int, ...]
    kind: int
    offset: int


class GgufFile:
    """A mapped GGUF file. ``metadata`` by key, ``tensors`` by name, ``data`` the bytes of the whole file."""

    def __init__(self, path: Path) -> None:
        """Read the head. Raises ``LoadFailed`` if the file cannot be read, is no GGUF, or has a damaged head."""
        self.name = path.name
        try:
            with path.open("rb") as file:
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self.metadata, self.tensors = _Head(self.data).read()
        except OSError as error:
            raise LoadFailed(f"The GGUF file '{path.name}' cannot be read: {error.strerror}.") from error
        except (ValueError, struct.error) as error:  # UnicodeDecodeError is a ValueError, as is an empty file's mapping
            raise LoadFailed(f"The file '{path.name}' is not a GGUF file of version 2 or 3, or its head is damaged.") from error


class _Head:
    """A cursor that never allocates more than the file can hold."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def read(self) -> tuple[dict[str, Value], dict[str, TensorEntry]]:
        magic, version, num_tensors, num_keys = self._unpack("<4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError("no GGUF")
        self._check(num_keys + num_tensors, 12)
        metadata = dict(self._pair() for _ in range(num_keys))
        entries = [(self._string(), self._entry()) for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError("alignment")
        start = -(-self._at // alignment) * alignment
        return metadata, {name: entry._replace(offset=start + entry.offset) for name, entry in entries}

    def _pair(self) -> tuple[str, Value]:
        return self._string(), self._value(self._unpack("<I")[0])

    def _entry(self) -> TensorEntry:
        (num_dims,) = self._unpack("<I")
        if num_dims > MAX_DIMS:
            raise ValueError("dimensions")
        dims = self._unpack(f"<{num_dims}Q")
        self._check(math.prod(dims), 0.125)  # no GGML type takes less than a bit per element
        kind, offset = self._unpack("<IQ")
        return TensorEntry(dims[::-1], kind, offset)

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._unpack(f"<{_code(kind)}")[0]
        item, count = self._unpack("<IQ")
        self._check(count, 1)
        return [self._string() for _ in range(count)] if item == _STRING else list(self._unpack(f"<{count}{_code(item)}"))

    def _string(self) -> str:
        (length,) = self._unpack("<Q")
        self._check(length, 1)
        start, self._at = self._at, self._at + length
        return self._data[start : self._at].decode()

    def _unpack(self, layout: str) -> tuple:
        at, self._at = self._at, self._at + struct.calcsize(layout)
        return struct.unpack_from(layout, self._data, at)

    def _check(self, count: int, size: float) -> None:
        if count * size > len(self._data):
            raise ValueError("longer than the file")


def _code(kind: int) -> str:
    if kind not in _SCALARS:
        raise ValueError("type")
    return _SCALARS[kind]
