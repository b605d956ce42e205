"""Llama 3: ``{"name": …, "parameters": {…}}`` instead of text, or after ``<|python_tag|>``; several are parted by ``;``."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from octavo.text.pieces import Pieces
from octavo.text.tools.format import Tool, ToolFormat, json_rules
from octavo.text.tools.json_parser import JsonCallParser, Step

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


class LlamaJsonParser(JsonCallParser):
    """Reads calls from the first character on, from the tag on and from where one has ended."""

    def __init__(self, pieces: Pieces) -> None:
        """See ``ToolParser``."""
        super().__init__(pieces, _TAG, self._read_start)

    def finish(self) -> None:
        """Nothing follows."""
        if self._step == self._read_call:
            self._give_back()
        elif self._step == self._read_start and (self._tagged or not self._called):
            self._say("".join(self._opening))
        self._text.finish(keep_blanks=not self._called)

    @property
    def _tagged(self) -> bool:
        return bool(self._opening) and self._opening[0].endswith(_TAG)

    def _read_start(self, character: str) -> None:
        if character.isspace() or (character == ";" and self._called):
            self._opening.append(character)
        elif character == "{":
            self._begin_call(character, bare=True)
        else:
            self._read_on(character)

    def _read_on(self, character: str) -> None:
        """It is text, of which a tag is none again."""
        text, known = [*self._opening, character], len(self._opening) if self._tagged else 0
        self._opening, self._step = [], self._read_text
        self._say("".join(text[:known]))
        for one in text[known:]:
            self._step(one)

    def _after_call(self, over: bool) -> Step:
        return self._read_start
