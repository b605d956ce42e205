"""Hermes, Qwen and many after them: ``<tool_call>{"name": …, "arguments": {…}}</tool_call>``, as often as they like."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from octavo.text.pieces import Pieces
from octavo.text.tools.format import Tool, ToolFormat, json_rules, quoted
from octavo.text.tools.json_parser import JsonCallParser, Step
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


class HermesParser(JsonCallParser):
    """After a call its end is no text, and what stands before that and is no JSON belongs to the call."""

    def __init__(self, pieces: Pieces) -> None:
        """See ``ToolParser``."""
        super().__init__(pieces, _BEGIN, self._read_text)
        self._before_call, self._after_json = self._text, Watch([_BEGIN, _END], self._say)
        self._raw = Watch([_END], self._argue)
        self._rest: list[str] = []
        self._unread = Watch([_BEGIN, _END], self._rest.append)

    def finish(self) -> None:
        """Nothing follows."""
        if self._step in (self._read_start, self._read_call):
            self._give_back()
        elif self._step == self._read_raw:
            self._raw.finish(keep_blanks=True)
        elif self._step == self._read_rest:
            self._unread.finish(keep_blanks=False)
            self._say("".join(self._rest))
        self._text.finish(keep_blanks=not self._called)

    def _pass(self, marker: str) -> None:
        if marker.endswith(_BEGIN):
            super()._pass(marker)
        else:
            self._text, self._step = self._before_call, self._read_text

    def _read_start(self, character: str) -> None:
        if character.isspace():
            self._opening.append(character)
        elif character == "{":
            self._begin_call(character)
        else:
            self._give_back()
            self._step(character)

    def _after_call(self, over: bool) -> Step:
        if not over:
            return self._read_rest
        self._text = self._after_json
        return self._read_text

    def _after_break(self) -> Step:
        return self._read_raw

    def _read_raw(self, character: str) -> None:
        """Arguments that are no JSON go on until the marker."""
        if found := self._raw.step(character):
            self._pass(found)

    def _read_rest(self, character: str) -> None:
        """What follows the arguments and is no JSON belongs to the call if that ends."""
        if found := self._unread.step(character):
            self._rest.clear()
            self._pass(found)
