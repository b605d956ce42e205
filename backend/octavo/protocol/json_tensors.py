"""Tensor data as JSON: values of any nesting to the bytes of ``raw_input_contents``, and bytes back to values."""

import re
import struct
from collections.abc import Iterator
from itertools import chain
from typing import Any

import msgspec

from octavo.errors import InvalidRequest, shown

MISFIT = "Unable to parse 'data': Shape does not match true shape of 'data' field"
_MAX_DEPTH = 8
_OPENING = re.compile(rb"[\[\s]*")
_LENGTH = struct.Struct("<I")
# Per datatype: its code for ``struct``, the type of its JSON values, and how Triton names that.
_TYPES: dict[str, tuple[str, type, str]] = {
    "BOOL": ("?", bool, "boolean"),
    "UINT8": ("B", int, "unsigned-integer"),
    "UINT16": ("H", int, "unsigned-integer"),
    "UINT32": ("I", int, "unsigned-integer"),
    "UINT64": ("Q", int, "unsigned-integer"),
    "INT8": ("b", int, "signed-integer"),
    "INT16": ("h", int, "signed-integer"),
    "INT32": ("i", int, "signed-integer"),
    "INT64": ("q", int, "signed-integer"),
    "FP32": ("f", float, "number"),
    "FP64": ("d", float, "number"),
    "BYTES": ("", str, "string"),
}


def elements(name: str, datatype: str, data: msgspec.Raw) -> list[Any]:
    """The values in ``data``, a JSON scalar or array, flattened in order. Raises ``InvalidRequest`` with Triton's texts."""
    if datatype in {"FP16", "BF16"}:
        raise InvalidRequest(
            f"receiving {datatype} data via JSON is not supported. Please use the binary data format for input {shown(name)}"
        )
    if datatype not in _TYPES:
        raise InvalidRequest(f"invalid datatype for input {shown(name)}")
    _, kind, kind_name = _TYPES[datatype]
    opening = _OPENING.match(memoryview(data)[: 64 * _MAX_DEPTH])
    depth = opening[0].count(b"[") if opening else 0
    try:
        return list(_flat(msgspec.json.decode(data, type=_nested(kind, min(depth, _MAX_DEPTH))), depth))
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
        raise InvalidRequest(f"Unable to parse 'data': attempt to access JSON non-{kind_name} as {kind_name}") from None


def at_least(datatype: str, data: msgspec.Raw) -> int:
    """How many elements ``data`` has, as far as that can be told without reading them: of strings, one."""
    return 1 if datatype == "BYTES" else bytes(data).count(b",") + 1


def packed(name: str, datatype: str, values: list[Any]) -> bytes:
    """``values`` as a tensor's bytes. Raises ``InvalidRequest`` for numbers that the type cannot hold."""
    if datatype == "BYTES":
        texts = [value.encode() for value in values]
        return b"".join(chain.from_iterable((_LENGTH.pack(len(text)), text) for text in texts))
    try:
        return struct.pack(f"<{len(values)}{_TYPES[datatype][0]}", *values)
    except (struct.error, OverflowError):
        raise InvalidRequest(f"The data of input '{shown(name)}' holds a number that {datatype} cannot hold.") from None


def unpacked(datatype: str, data: bytes) -> list[Any]:
    """The values in a tensor's bytes; strings that are not UTF-8 show U+FFFD."""
    if datatype == "BYTES":
        return list(_strings(data))
    code = _TYPES[datatype][0]
    return list(struct.unpack(f"<{len(data) // struct.calcsize('<' + code)}{code}", data))


def _nested(kind: type, depth: int) -> Any:
    nested: Any = kind
    for _ in range(depth):
        nested = list[nested]
    return nested


def _flat(values: Any, depth: int) -> Iterator[Any]:
    if depth == 0:
        return iter([values])
    for _ in range(depth - 1):
        values = chain.from_iterable(values)
    return iter(values)


def _strings(data: bytes) -> Iterator[str]:
    at = 0
    while at < len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size + length
        yield data[at - length : at].decode(errors="replace")
