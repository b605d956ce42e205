"""``read_metadata``: the key-value head of a GGUF file, read in one pass. Never touches the tensors that follow it.

The ``gguf`` package maps the whole file and makes a numpy array of every string (seconds for a tokenizer's 100,000); a
front end needs a few megabytes of head only. Format: the GGUF specification, versions 2 and 3, little-endian.
"""

import os
import struct
from pathlib import Path
from typing import BinaryIO

from octavo.errors import LoadFailed

Scalar = bool | int | float | str
Value = Scalar | list[Scalar]

MAX_KEYS = 65_536
_STRING = 8
_ARRAY = 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def read_metadata(path: Path) -> dict[str, Value]:
    """All keys of the file's head. Raises ``LoadFailed`` if the file is no GGUF or its head is damaged."""
    try:
        with path.open("rb") as file:
            return _Head(file, os.fstat(file.fileno()).st_size).read()
    except OSError as error:
        raise LoadFailed(f"The GGUF file '{path.name}' cannot be read: {error.strerror}.") from error
    except (_Damaged, UnicodeDecodeError, struct.error) as error:
        raise LoadFailed(f"The GGUF file '{path.name}' has a damaged head.") from error


class _Damaged(Exception):
    """A length or a type in the file cannot be right."""


class _Head:
    """A reader that never allocates more than the file can still hold."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def read(self) -> dict[str, Value]:
        magic, version, _, num_keys = struct.unpack("<4sIQQ", self._take(24))
        if magic != b"GGUF" or version not in (2, 3) or num_keys > MAX_KEYS:
            raise _Damaged
        return dict(self._pair() for _ in range(num_keys))

    def _pair(self) -> tuple[str, Value]:
        return self._string(), self._value(self._number("I"))

    def _value(self, kind: int) -> Value:
        if kind != _ARRAY:
            return self._scalar(kind)
        item, count = struct.unpack("<IQ", self._take(12))
        if item == _STRING:
            if count * 8 > self._left:
                raise _Damaged
            return [self._string() for _ in range(count)]
        code = self._code(item)
        return list(struct.unpack(f"<{count}{code}", self._take(count * struct.calcsize("<" + code))))

    def _scalar(self, kind: int) -> Scalar:
        return self._string() if kind == _STRING else self._number(self._code(kind))

    def _string(self) -> str:
        return self._take(self._number("Q")).decode()

    def _number(self, code: str) -> int:
        (number,) = struct.unpack("<" + code, self._take(struct.calcsize("<" + code)))
        return number

    def _code(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise _Damaged
        return _SCALARS[kind]

    def _take(self, count: int) -> bytes:
        if count > self._left:
            raise _Damaged
        self._left -= count
        data = self._file.read(count)
        if len(data) != count:
            raise _Damaged
        return data
