"""Hermes, Qwen and many after them: ``<tool_call>{"name": …, "arguments": {…}}</tool_call>``, as often as they like."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from octavo.text.pieces import CallArguments, Content, Pieces
from octavo.text.tools.format import Tool, ToolFormat, json_rules, quoted
from octavo.text.tools.json_call import JsonCall
from octavo.text.tools.json_scan import Scan
from octavo.text.tools.watch import Watch

_BEGIN, _END = "<tool_call>", "</tool_call>"


class Hermes(ToolFormat):
    """See above."""

    markers: ClassVar[tuple[str, ...]] = (_BEGIN, _END)

    def parser(self, pieces: Pieces) -> "HermesParser":
        """A parser of one answer."""
        return HermesParser(pieces)

    def grammar(self, tools: Sequence[Tool], parallel: bool, marker: Callable[[str], str]) -> str:
        """One call a line, each between its markers."""
        block = f'block: {marker(_BEGIN)} "\\n" call "\\n" {marker(_END)}'
        more = f" ({quoted(chr(10))} block)*" if parallel else ""
        return f"calls: block{more}\n{block}\n{json_rules(tools, 'arguments')}"


class HermesParser:
    """``_opening``: the marker with the blanks around it, while nothing but that is known of a call."""

    def __init__(self, pieces: Pieces) -> None:
        """See ``ToolParser``."""
        self._pieces = pieces
        self._text = Watch([_BEGIN], self._say)
        self._after = Watch([_BEGIN, _END], self._say)
        self._raw = Watch([_END], self._argue)
        self._rest: list[str] = []
        self._unread = Watch([_BEGIN, _END], self._rest.append)
        self._outside = self._text
        self._called = False
        self._opening: list[str] = []
        self._call: JsonCall | None = None
        self._step: Callable[[str], None] = self._read_text

    def step(self, character: str) -> None:
        """Take in one more character."""
        self._step(character)

    def finish(self) -> None:
        """Nothing follows."""
        if self._step == self._read_call:
            self._give_back()
        elif self._step == self._read_raw:
            self._raw.finish(keep_blanks=True)
        elif self._step == self._read_rest:
            self._unread.finish(keep_blanks=False)
            self._say("".join(self._rest))
        self._outside.finish(keep_blanks=not self._called)

    def _read_text(self, character: str) -> None:
        if found := self._outside.step(character):
            self._pass(found)

    def _pass(self, marker: str) -> None:
        if marker.endswith(_BEGIN):
            self._opening, self._call, self._step = [marker], None, self._read_call
        else:
            self._outside, self._step = self._text, self._read_text

    def _read_call(self, character: str) -> None:
        if self._call is None:
            if character.isspace():
                self._opening.append(character)
                return
            self._call = JsonCall(self._pieces)
        scan = self._call.step(character)
        if scan is Scan.GOES_ON:
            return
        self._called = self._called or self._call.begun
        if scan is Scan.IS_OVER:
            self._outside, self._step = self._after, self._read_text
        elif self._call.complete:
            self._step = self._read_rest
        elif self._call.begun:
            self._step = self._read_raw
        else:
            self._give_back()
        if scan is Scan.IS_NONE:
            self._step(character)

    def _give_back(self) -> None:
        """It was no call, or one that does not end."""
        if self._call is None or not self._call.begun:
            self._say("".join((*self._opening, *(self._call.held if self._call else ()))))
        self._step = self._read_text

    def _read_raw(self, character: str) -> None:
        """Arguments that are no JSON go on until the marker."""
        if found := self._raw.step(character):
            self._pass(found)

    def _read_rest(self, character: str) -> None:
        """What follows the arguments and is no JSON belongs to the call if that ends."""
        if found := self._unread.step(character):
            self._rest.clear()
            self._pass(found)

    def _say(self, text: str) -> None:
        self._pieces.add(Content, text)

    def _argue(self, text: str) -> None:
        self._pieces.add(CallArguments, text)
