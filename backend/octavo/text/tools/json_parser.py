"""``JsonCallParser``: what parsers have in common for which calls are JSON objects after a marker, and all else is text."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from octavo.text.pieces import CallArguments, Content, Pieces
from octavo.text.tools.json_call import JsonCall
from octavo.text.tools.json_scan import Scan
from octavo.text.tools.watch import Watch

Step = Callable[[str], None]


class JsonCallParser(ABC):
    """A ``ToolParser``. ``_opening``: what stands before a call that may begin now, its marker included."""

    def __init__(self, pieces: Pieces, marker: str, first: Step) -> None:
        """Tell ``pieces``; the ``first`` character is read by that."""
        self._pieces = pieces
        self._text = Watch([marker], self._say)
        self._opening: list[str] = []
        self._call: JsonCall | None = None
        self._called = False
        self._step = first

    def step(self, character: str) -> None:
        """Take in one more character."""
        self._step(character)

    @abstractmethod
    def _read_start(self, character: str) -> None:
        """After the marker."""

    @abstractmethod
    def _after_call(self, over: bool) -> Step:
        """What reads on when a call is whole; unless it is ``over``, its object is not, and goes on with what is no JSON."""

    def _after_break(self) -> Step:
        """What reads on when arguments prove to be no JSON: they go on until the end."""
        return self._argue

    def _read_text(self, character: str) -> None:
        if found := self._text.step(character):
            self._pass(found)

    def _pass(self, marker: str) -> None:
        """``marker``, with the blanks before it, is no text."""
        self._opening, self._call, self._step = [marker], None, self._read_start

    def _begin_call(self, bracket: str, bare: bool = False) -> None:
        """An object, which ``bracket`` opens."""
        self._call, self._step = JsonCall(self._pieces, bare), self._read_call
        self._call.step(bracket)

    def _read_call(self, character: str) -> None:
        assert self._call is not None
        scan = self._call.step(character)
        if scan is Scan.GOES_ON:
            return
        self._called = self._called or self._call.begun
        if scan is Scan.IS_OVER or self._call.complete:
            self._opening, self._call, self._step = [], None, self._after_call(scan is Scan.IS_OVER)
        elif self._call.begun:
            self._step = self._after_break()
        else:
            self._give_back()
        if scan is Scan.IS_NONE:
            self._step(character)

    def _give_back(self) -> None:
        """It was no call, or one that does not end: text is what has been told to nobody."""
        if self._call is None or not self._call.begun:
            self._say("".join((*self._opening, *(self._call.held if self._call else ()))))
        self._opening, self._call, self._step = [], None, self._read_text

    def _say(self, text: str) -> None:
        self._pieces.add(Content, text)

    def _argue(self, text: str) -> None:
        self._pieces.add(CallArguments, text)
