"""Mistral: ``[TOOL_CALLS]`` before a list of JSON objects or, in newer models, before a name and its arguments."""

import re
import secrets
import string
from collections.abc import Callable, Sequence
from typing import ClassVar

from octavo.text.pieces import Pieces
from octavo.text.tools.format import Tool, ToolFormat, json_rules, json_value, quoted
from octavo.text.tools.json_parser import JsonCallParser, Step
from octavo.text.tools.json_scan import JsonScan, Scan

_BEGIN, _ARGUMENTS, _ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
_CHARACTERS = string.ascii_letters + string.digits
# A name, and what may stand between it and the arguments.
_NAME = re.compile(r"\s*([\w.:-]+)\s*(?:\[CALL_ID\]\s*[\w-]*\s*)?(?:\[ARGS\]\s*)?", re.ASCII)
_NAMED = frozenset(_CHARACTERS + "_.:-[] \t\r\n")
_LONGEST_HEAD = 256


class Mistral(ToolFormat):
    """See above."""

    markers: ClassVar[tuple[str, ...]] = (_BEGIN, _ARGUMENTS, _ID)

    def __init__(self, named: bool) -> None:
        """``named``: the model writes a name and its arguments, and no lists."""
        self._named = named

    def parser(self, pieces: Pieces) -> "MistralParser":
        """A parser of one answer, in either way of writing."""
        return MistralParser(pieces)

    def grammar(self, tools: Sequence[Tool], parallel: bool, marker: Callable[[str], str]) -> str:
        """The way that the model writes."""
        begin = marker(_BEGIN)
        if not self._named:
            more = ' (", " call)*' if parallel else ""
            return f'calls: {begin} "[" call{more} "]"\n{json_rules(tools, "arguments")}'
        rules = [f"calls: call{'+' if parallel else ''}", f"call: {' | '.join(f'call_{i}' for i in range(len(tools)))}"]
        for number, tool in enumerate(tools):
            arguments = f"{marker(_ARGUMENTS)} {json_value(tool.parameters)}"
            rules.append(f"call_{number}: {begin} {quoted(tool.name)} {arguments}")
        return "\n".join(rules)

    def call_id(self) -> str:
        """Nine letters and digits, as their templates demand."""
        return "".join(secrets.choice(_CHARACTERS) for _ in range(9))


class MistralParser(JsonCallParser):
    """Reads both ways of writing after the marker."""

    def __init__(self, pieces: Pieces) -> None:
        """See ``ToolParser``."""
        super().__init__(pieces, _BEGIN, self._read_text)
        self._name: list[str] = []
        self._arguments = JsonScan()
        self._listed = False

    def finish(self) -> None:
        """Nothing follows."""
        if self._step in (self._read_start, self._read_item, self._read_call, self._read_name):
            self._give_back()
        self._text.finish(keep_blanks=not self._called)

    def _read_start(self, character: str) -> None:
        if character == "[":
            self._opening.append(character)
            self._step = self._read_item
        elif character.isspace():
            self._opening.append(character)
        elif character == "{":
            self._listed = False
            self._begin_call(character)
        else:
            self._name, self._step = [], self._read_name
            self._step(character)

    def _read_item(self, character: str) -> None:
        """In a list, between calls."""
        if character.isspace() or character == ",":
            self._opening.append(character)
        elif character == "{":
            self._listed = True
            self._begin_call(character)
        elif character == "]" and self._called:
            self._opening, self._step = [], self._read_text
        else:
            self._give_back()
            self._step(character)

    def _after_call(self, over: bool) -> Step:
        return self._read_item if self._listed else self._read_text

    def _read_name(self, character: str) -> None:
        """A name, up to the arguments."""
        if character == "{" and (found := _NAME.fullmatch("".join(self._name))):
            self._called = True
            self._pieces.begin_call(found[1])
            self._opening, self._arguments, self._step = [], JsonScan(), self._read_arguments
            self._step(character)
        elif character in _NAMED and len(self._name) < _LONGEST_HEAD:
            self._name.append(character)
            self._opening.append(character)
        else:
            self._give_back()
            self._step(character)

    def _read_arguments(self, character: str) -> None:
        scan = self._arguments.step(character)
        if scan is Scan.IS_NONE:
            self._step = self._argue
        self._argue(character)
        if scan is Scan.IS_OVER:
            self._step = self._read_text
