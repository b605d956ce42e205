"""``JsonScan``: where one JSON value ends in a text that comes in pieces. Knows brackets and strings, and no meaning."""

from enum import Enum

_BLANKS = frozenset(" \t\r\n")
_LITERALS = frozenset("0123456789+-.eEtrufalsnNIity")
_CLOSING = {"{": "}", "[": "]"}


class Scan(Enum):
    """What a character makes of a value."""

    GOES_ON = 0
    IS_OVER = 1
    IS_NONE = 2


class JsonScan:
    """Follows one object or array. ``depth`` brackets are open; ``in_string``: the next character is of a string."""

    def __init__(self) -> None:
        """Before the first bracket."""
        self.in_string = False
        self._open: list[str] = []
        self._escaped = False

    @property
    def depth(self) -> int:
        """How many brackets are open."""
        return len(self._open)

    def step(self, character: str) -> Scan:
        """Take in one more character. A value that is none ends with the character before."""
        if self.in_string:
            self._spell(character)
        elif character in _CLOSING:
            self._open.append(_CLOSING[character])
        elif character in ("}", "]"):
            if not self._open or self._open.pop() != character:
                return Scan.IS_NONE
            if not self._open:
                return Scan.IS_OVER
        elif not self._open:
            return Scan.IS_NONE
        elif character == '"':
            self.in_string = True
        elif character not in _BLANKS and character not in _LITERALS and character not in (",", ":"):
            return Scan.IS_NONE
        return Scan.GOES_ON

    def _spell(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self.in_string = False
