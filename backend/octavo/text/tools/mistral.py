"""Mistral: ``[TOOL_CALLS]`` before a list of JSON objects or, in newer models, before a name and its arguments."""

import re
import secrets
import string
from collections.abc import Callable, Sequence
from typing import ClassVar

from octavo.text.pieces import CallArguments, Content, Pieces
from octavo.text.tools.format import Tool, ToolFormat, json_rules, json_value, quoted
from octavo.text.tools.json_call import JsonCall
from octavo.text.tools.json_scan import JsonScan, Scan
from octavo.text.tools.watch import Watch

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


class MistralParser:
    """``_opening``: what has been read since the last thing that was told, while it may be a call."""

    def __init__(self, pieces: Pieces) -> None:
        """See ``ToolParser``."""
        self._pieces = pieces
        self._text = Watch([_BEGIN], self._say)
        self._opening: list[str] = []
        self._name: list[str] = []
        self._call: JsonCall | None = None
        self._arguments = JsonScan()
        self._called = self._listed = False
        self._step: Callable[[str], None] = self._read_text

    def step(self, character: str) -> None:
        """Take in one more character."""
        self._step(character)

    def finish(self) -> None:
        """Nothing follows."""
        if self._step in (self._read_start, self._read_item, self._read_call, self._read_name):
            self._give_back()
        self._text.finish(keep_blanks=not self._called)

    def _read_text(self, character: str) -> None:
        if (found := self._text.step(character)) is not None:
            self._opening, self._call, self._step = [found], None, self._read_start

    def _read_start(self, character: str) -> None:
        """After the marker."""
        if character == "[":
            self._opening.append(character)
            self._step = self._read_item
        elif character.isspace():
            self._opening.append(character)
        elif character == "{":
            self._listed = False
            self._begin_object(character)
        else:
            self._name, self._step = [], self._read_name
            self._step(character)

    def _read_item(self, character: str) -> None:
        """In a list, between calls."""
        if character.isspace() or character == ",":
            self._opening.append(character)
        elif character == "{":
            self._listed = True
            self._begin_object(character)
        elif character == "]" and self._called:
            self._opening, self._step = [], self._read_text
        else:
            self._give_back()
            self._step(character)

    def _begin_object(self, character: str) -> None:
        self._call, self._step = JsonCall(self._pieces), self._read_call
        self._call.step(character)

    def _read_call(self, character: str) -> None:
        assert self._call is not None
        scan = self._call.step(character)
        if scan is Scan.GOES_ON:
            return
        self._called = self._called or self._call.begun
        if scan is Scan.IS_OVER or self._call.complete:
            self._opening, self._call = [], None
            self._step = self._read_item if self._listed else self._read_text
        elif self._call.begun:
            self._step = self._argue
        else:
            self._give_back()
        if scan is Scan.IS_NONE:
            self._step(character)

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

    def _give_back(self) -> None:
        """It was no call, or one that does not end."""
        held = self._call.held if self._call is not None and not self._call.begun else ()
        self._say("".join((*self._opening, *held)))
        self._opening, self._call, self._step = [], None, self._read_text

    def _say(self, text: str) -> None:
        self._pieces.add(Content, text)

    def _argue(self, text: str) -> None:
        """Arguments that are no JSON go on until the end."""
        self._pieces.add(CallArguments, text)
