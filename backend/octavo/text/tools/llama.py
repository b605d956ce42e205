"""Llama 3: ``{"name": …, "parameters": {…}}`` instead of text, or after ``<|python_tag|>``; several are parted by ``;``."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from octavo.text.pieces import CallArguments, Content, Pieces
from octavo.text.tools.format import Tool, ToolFormat, json_rules
from octavo.text.tools.json_call import JsonCall
from octavo.text.tools.json_scan import Scan
from octavo.text.tools.watch import Watch

_TAG = "<|python_tag|>"


class LlamaJson(ToolFormat):
    """See above. The models were trained on one call at a time, so no more is asked for."""

    markers: ClassVar[tuple[str, ...]] = (_TAG,)

    def parser(self, pieces: Pieces) -> "LlamaJsonParser":
        """A parser of one answer."""
        return LlamaJsonParser(pieces)

    def grammar(self, tools: Sequence[Tool], parallel: bool, marker: Callable[[str], str]) -> str:
        """One call, without the tag, as their templates ask for."""
        return f"calls: call\n{json_rules(tools, 'parameters')}"


class LlamaJsonParser:
    """``_gap``: what stands before a call that may begin now, the tag included."""

    def __init__(self, pieces: Pieces) -> None:
        """See ``ToolParser``."""
        self._pieces = pieces
        self._text = Watch([_TAG], self._say)
        self._gap: list[str] = []
        self._call: JsonCall | None = None
        self._called = self._tagged = False
        self._step: Callable[[str], None] = self._read_gap

    def step(self, character: str) -> None:
        """Take in one more character."""
        self._step(character)

    def finish(self) -> None:
        """Nothing follows."""
        if self._step == self._read_call:
            self._give_back()
        elif self._step == self._read_gap and (self._tagged or not self._called):
            self._say("".join(self._gap))
        self._text.finish(keep_blanks=not self._called)

    def _read_gap(self, character: str) -> None:
        if character.isspace() or (character == ";" and self._called):
            self._gap.append(character)
        elif character == "{":
            self._call, self._step = JsonCall(self._pieces, bare=True), self._read_call
            self._call.step(character)
        else:
            self._read_on([*self._gap, character], known=len(self._gap) if self._tagged else 0)

    def _read_on(self, text: list[str], known: int = 0) -> None:
        """It is text, of which the first ``known`` characters can be no tag again."""
        self._gap, self._tagged, self._step = [], False, self._read_text
        self._say("".join(text[:known]))
        for character in text[known:]:
            self._step(character)

    def _read_text(self, character: str) -> None:
        if (found := self._text.step(character)) is not None:
            self._gap, self._tagged, self._step = [found], True, self._read_gap

    def _read_call(self, character: str) -> None:
        assert self._call is not None
        scan = self._call.step(character)
        if scan is Scan.GOES_ON:
            return
        self._called = self._called or self._call.begun
        if scan is Scan.IS_OVER or self._call.complete:
            self._gap, self._tagged, self._step = [], False, self._read_gap
        elif self._call.begun:
            self._step = self._argue
        else:
            self._give_back()
        if scan is Scan.IS_NONE:
            self._step(character)

    def _give_back(self) -> None:
        """It was no call, or one that does not end."""
        assert self._call is not None
        if not self._call.begun:
            self._say("".join((*self._gap, *self._call.held)))
        self._gap, self._tagged, self._step = [], False, self._read_text

    def _say(self, text: str) -> None:
        self._pieces.add(Content, text)

    def _argue(self, text: str) -> None:
        """Arguments that are no JSON go on until the end."""
        self._pieces.add(CallArguments, text)
