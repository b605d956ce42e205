"""JSON of the HTTP dialects, inwards and outwards, with the words of Triton for what cannot be read. Knows no route.

Bodies are decoded by type: what nobody asked for is skipped, not built, so that a body costs no more than its own size.
"""

import re
from typing import Any, TypeVar

import msgspec
from google.protobuf.message import Message

from octavo.errors import InvalidRequest, shown
from octavo.protocol.rejection import RejectedRequest
from octavo.wire import pb

Decoded = TypeVar("Decoded")
UNPARSABLE = "failed to parse the request JSON buffer: "
# What msgspec says of a syntax error, and RapidJSON, whose words Triton passes on.
_FLAWS = {
    "object keys must be strings": "Missing a name for object member.",
    "expected ':'": "Missing a colon after a name of object member.",
    "expected ',' or '}'": "Missing a comma or } after an object member.",
    "expected ',' or ']'": "Missing a comma or ] after an array element.",
    "trailing characters": "The document root must not be followed by other values.",
}
_KINDS = {"str": "string", "int": "unsigned-integer", "array": "array", "object": "object", "bool": "boolean"}
_SYNTAX = re.compile(r"JSON is malformed: (.+) \(byte (\d+)\)")
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_MISTYPED = re.compile(r"Expected `(\w+)`.* - at `\$.*?(\w+)(?:\[[^.]*\])*`$")


def decode(decoder: "msgspec.json.Decoder[Decoded]", data: bytes | msgspec.Raw) -> Decoded:
    """The value in ``data``. Raises ``InvalidRequest`` with Triton's texts."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise InvalidRequest(_misfit(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InvalidRequest(UNPARSABLE + _flaw(error, bytes(data))) from None


def parameter(name: str, value: msgspec.Raw) -> pb.InferParameter:
    """A request parameter of a JSON value, which must be a scalar. Raises ``RejectedRequest``."""
    decoded = _scalar(value)
    if isinstance(decoded, bool):
        return pb.InferParameter(bool_param=decoded)
    if isinstance(decoded, int) and -(2**63) <= decoded < 2**64:
        return pb.InferParameter(int64_param=decoded) if decoded < 2**63 else pb.InferParameter(uint64_param=decoded)
    if isinstance(decoded, float):
        return pb.InferParameter(double_param=decoded)
    if isinstance(decoded, str):
        return pb.InferParameter(string_param=decoded)
    raise RejectedRequest(f"parameter '{shown(name)}' has invalid type. It should be either 'int', 'bool', or 'string'.")


def as_json(message: Message) -> dict[str, Any]:
    """``message`` under its own field names: defaults written out, 64-bit numbers as numbers, absent messages left out."""
    members: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
            members[field.name] = _members(field, value) if is_map else [_value(field, item) for item in value]
        elif not field.has_presence or message.HasField(field.name):
            members[field.name] = _value(field, value)
    return members


def _members(field: Any, entries: Any) -> dict[str, Any]:
    value_field = field.message_type.fields_by_name["value"]
    return {str(key): _value(value_field, entries[key]) for key in sorted(entries)}


def _value(field: Any, value: Any) -> Any:
    if isinstance(value, Message):
        return as_json(value)
    return field.enum_type.values_by_number[value].name if field.enum_type is not None else value


def _scalar(value: msgspec.Raw) -> bool | int | float | str | None:
    try:
        return _SCALAR.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        return None


def _misfit(text: str) -> str:
    """Triton's words for a member that is missing or of the wrong type."""
    if missing := _MISSING.match(text):
        return f"Unable to parse '{missing[1]}': attempt to access non-existing object member '{missing[1]}'"
    if mistyped := _MISTYPED.match(text):
        kind = _KINDS.get(mistyped[1], mistyped[1])
        return f"Unable to parse '{mistyped[2]}': attempt to access JSON non-{kind} as {kind}"
    return f"{UNPARSABLE}it must be a JSON object"


def _flaw(error: Exception, data: bytes) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if not data.strip():
        return "The document is empty. at 0"
    if not isinstance(error, UnicodeDecodeError) and (syntax := _SYNTAX.match(str(error))):
        return f"{_FLAWS.get(syntax[1], 'Invalid value.')} at {syntax[2]}"
    return f"Invalid value. at {len(data)}"


_SCALAR = msgspec.json.Decoder(bool | int | float | str | None)
