"""JSON bodies to structs, with the OpenAI API's words for what does not fit. Knows no field by name."""

import difflib
import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from octavo.errors import InvalidRequest, shown
from octavo.protocol.openai.errors import FieldError

Decoded = TypeVar("Decoded", bound=msgspec.Struct)
# With less, names of other things are taken for misspelled ones.
_ALIKE = 0.8
# More are refused before they are built: what takes longer than some 50 ms to read holds up everybody.
MAX_VALUES = 1 << 20
_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`(?: - at `\$\.?(.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(\w+)`(?: - at `\$\.?(.*)`)?")
_MISTYPED = re.compile(r"Expected `([^`]+)`(?:, got `([^`]+)`)?(?: - at (?:`key` in )?`\$\.?(.*)`)?")
_NO_CHOICE = re.compile(r"Invalid enum value (.*?) - at `\$\.?(.*)`", re.DOTALL)
_OUT_OF_RANGE = re.compile(r".*out of range.* - at `\$\.?(.*)`")
_KINDS = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "array": "an array",
    "object": "an object",
    "null": "null",
}


def decode(decoder: "msgspec.json.Decoder[Decoded]", body: bytes, elsewhere: Mapping[str, str]) -> Decoded:
    """The struct in ``body``. Raises ``InvalidRequest``, with the field if one is at fault.

    ``elsewhere``: what to say of fields that other routes have and this has not, by their names.
    """
    if body.count(b",") >= MAX_VALUES:
        raise InvalidRequest(f"The request body must hold at most {MAX_VALUES} values.")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _misfit(str(error), decoder.type, elsewhere) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        raise InvalidRequest("The request body must be one JSON object, but it is not valid JSON.") from None


def _misfit(text: str, wanted: type[msgspec.Struct], elsewhere: Mapping[str, str]) -> InvalidRequest:
    if found := _UNKNOWN.fullmatch(text):
        return _unknown(found[1], found[2], wanted, elsewhere)
    if found := _MISSING.fullmatch(text):
        name = _joined(found[2], found[1])
        return FieldError(f"Missing required parameter: '{name}'.", _field(name), "missing_required_parameter")
    if found := _OUT_OF_RANGE.fullmatch(text):
        return FieldError(f"Invalid '{found[1]}': the number is out of range.", _field(found[1]), "invalid_value")
    if found := _NO_CHOICE.fullmatch(text):
        return FieldError(
            f"Invalid value: {shown(found[1])} is none that '{found[2]}' can have.", _field(found[2]), "invalid_value"
        )
    found = _MISTYPED.fullmatch(text)
    if found is None or not found[3]:
        return InvalidRequest("The request body must be a JSON object.")
    got = f", but got {_kinds(found[2])} instead" if found[2] else ""
    return FieldError(f"Invalid type for '{found[3]}': expected {_kinds(found[1])}{got}.", _field(found[3]), "invalid_type")


def _unknown(name: str, where: str | None, wanted: type[msgspec.Struct], elsewhere: Mapping[str, str]) -> FieldError:
    name = shown(name)
    if where is not None:
        return FieldError(f"Unknown parameter: '{where}.{name}'.", _field(where), "unknown_parameter")
    near = difflib.get_close_matches(name, wanted.__struct_fields__, n=1, cutoff=_ALIKE)
    hint = f" {elsewhere[name]}" if name in elsewhere else f" Did you mean '{near[0]}'?" if near else ""
    return FieldError(f"Unknown parameter: '{name}'.{hint}", name, "unknown_parameter")


def _joined(where: str | None, name: str) -> str:
    return f"{where}.{name}" if where else name


def _field(path: str) -> str:
    """The body's own field that a path begins with."""
    return re.split(r"[.\[]", path, maxsplit=1)[0]


def _kinds(types: str) -> str:
    """Types as JSON names them; that a field may be left out needs no saying."""
    names = [name for name in types.split(" | ") if name != "null"] or ["null"]
    return " or ".join(_KINDS.get(name, name) for name in names)
