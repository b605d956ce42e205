"""Llama 3.2 and 4 and others: ``[f(a=1), g(b="x")]`` instead of text, calls as Python writes them.

A call is told when it ends, as its arguments have to be read as Python to be told as JSON. None of it is ever run.
"""

import ast
import json
import re
import string
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from octavo.errors import InvalidRequest
from octavo.text.pieces import CallArguments, Content, Pieces
from octavo.text.tools.format import Tool, ToolFormat, json_value, quoted

_ARGUMENT = re.compile(r"\s*([\w-]+)\s*=\s*(\S.*)", re.DOTALL)
_NAMED = frozenset(string.ascii_letters + string.digits + "_.:-")
_CLOSING = {"(": ")", "[": "]", "{": "}"}
# A call is read at once when it ends, which takes no time for text but 30 ms for so many other characters.
MOST_BESIDE_STRINGS = 8192
# JSON's, which grammars ask for and some models write.
_NAMES = {"true": True, "false": False, "null": None}
_UNDERSTOOD = {"type", "properties", "required", "additionalProperties", "$defs", "definitions", "title", "description", "$schema"}


class Pythonic(ToolFormat):
    """See above."""

    def parser(self, pieces: Pieces) -> "PythonicParser":
        """A parser of one answer."""
        return PythonicParser(pieces)

    def grammar(self, tools: Sequence[Tool], parallel: bool, marker: Callable[[str], str]) -> str:
        """A list of calls whose values are JSON's, in the order of the schema's properties, the required ones first."""
        more = ' (", " call)*' if parallel else ""
        rules = [f'calls: "[" call{more} "]"', f"call: {' | '.join(f'call_{number}' for number in range(len(tools)))}"]
        for number, tool in enumerate(tools):
            rules.append(f"call_{number}: {quoted(tool.name + '(')} {_arguments(tool)} {quoted(')')}")
        return "\n".join(rules)


def _arguments(tool: Tool) -> str:
    schema = tool.parameters
    if unknown := sorted(set(schema) - _UNDERSTOOD):
        text = (
            f"The parameters of the tool '{tool.name}' must be an object with properties; '{unknown[0]}' cannot be kept to there."
        )
        raise InvalidRequest(text)
    definitions: dict[str, Any] = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    properties = schema.get("properties") or {}
    required = [name for name in properties if name in (schema.get("required") or ())]
    optional = [name for name in properties if name not in required]

    def spelled(name: str) -> str:
        value = properties[name]
        return f"{quoted(name + '=')} {json_value({**(value if isinstance(value, dict) else {}), **definitions})}"

    rule = ' ", " '.join(spelled(name) for name in required)
    if required:
        return rule + "".join(f' (", " {spelled(name)})?' for name in optional)
    # The first that is there has no comma before it.
    ways = [
        spelled(first) + "".join(f' (", " {spelled(name)})?' for name in optional[at + 1 :]) for at, first in enumerate(optional)
    ]
    return f"({' | '.join(ways)})?" if ways else ""


class PythonicParser:
    """``_held``: what has been read since the last call that was told, while it may be another."""

    def __init__(self, pieces: Pieces) -> None:
        """See ``ToolParser``."""
        self._pieces = pieces
        self._held: list[str] = []
        self._name: list[str] = []
        self._parts: list[list[str]] = []  # what the call's own commas part
        self._open: list[str] = []
        self._beside_strings = 0
        self._quote = ""
        self._escaped = self._called = False
        self._step: Callable[[str], None] = self._read_start

    def step(self, character: str) -> None:
        """Take in one more character."""
        self._step(character)

    def finish(self) -> None:
        """Nothing follows."""
        if self._step != self._say:
            held = "".join(self._held)
            self._say("" if self._called and not held.strip(" \t\r\n,") else held)

    def _read_start(self, character: str) -> None:
        if not character.isspace() and character != "[":
            self._give_back(character)
            return
        self._held.append(character)
        if character == "[":
            self._step = self._read_name

    def _read_name(self, character: str) -> None:
        """Between calls, or in a name."""
        if character == "]" and self._called and not self._name:
            self._held, self._step = [], self._read_end
            return
        if character == "(" and self._name:
            self._parts, self._open, self._quote, self._step = [[]], [")"], "", self._read_body
            self._beside_strings = 0
        elif character in _NAMED:
            self._name.append(character)
        elif self._name or not (character.isspace() or (character == "," and self._called)):
            self._give_back(character)
            return
        self._held.append(character)

    def _read_body(self, character: str) -> None:
        self._held.append(character)
        self._beside_strings += not self._quote
        if self._quote:
            self._read_string(character)
        elif self._beside_strings > MOST_BESIDE_STRINGS:
            self._held.pop()
            self._give_back(character)
            return
        elif character in "\"'":
            self._quote = character
        elif character in _CLOSING:
            self._open.append(_CLOSING[character])
        elif character in ")]}" and self._open.pop() != character:
            self._held.pop()
            self._give_back(character)
            return
        if not self._open:
            self._end_call()
        elif character == "," and len(self._open) == 1 and not self._quote:
            self._parts.append([])
        else:
            self._parts[-1].append(character)

    def _read_string(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == self._quote:
            self._quote = ""

    def _end_call(self) -> None:
        arguments = _read_arguments(["".join(part) for part in self._parts])
        if arguments is None:
            self._give_back("")
            return
        self._called = True
        self._pieces.begin_call("".join(self._name))
        self._pieces.add(CallArguments, arguments)
        self._held, self._name, self._step = [], [], self._read_name

    def _read_end(self, character: str) -> None:
        """After the list."""
        if character.isspace():
            self._held.append(character)
        else:
            self._give_back(character)

    def _give_back(self, character: str) -> None:
        """From here on it is text."""
        self._say("".join(self._held) + character)
        self._held, self._step = [], self._say

    def _say(self, text: str) -> None:
        self._pieces.add(Content, text)


def _read_arguments(parts: list[str]) -> str | None:
    """The JSON of what stands between a call's brackets, None if it is not names and values of whole characters."""
    if parts[-1].strip() == "":
        parts = parts[:-1]
    arguments: dict[str, Any] = {}
    try:
        for part in parts:
            found = _ARGUMENT.fullmatch(part)
            if found is None or found[1] in arguments:
                return None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what the model wrote, nobody has to be warned
                arguments[found[1]] = _value(ast.parse(f"({found[2]}\n)", mode="eval").body)
        text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        return text.encode("utf-16", "surrogatepass").decode("utf-16")  # two escapes may be one character, as JSON has it
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(element) for element in node.elts]
    if isinstance(node, ast.Dict):
        keys = [None if key is None else ast.literal_eval(key) for key in node.keys]
        if not all(isinstance(key, str) for key in keys):
            raise ValueError("a key that is no string")
        return {key: _value(value) for key, value in zip(keys, node.values, strict=True)}
    return ast.literal_eval(node)
