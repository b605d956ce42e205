"""``JsonCall``: a call that is written as a JSON object with a name and arguments, told while it comes. Knows no markers."""

import json
from typing import Any

import msgspec

from octavo.text.pieces import CallArguments, Pieces
from octavo.text.tools.json_scan import JsonScan, Scan

ARGUMENTS = frozenset({"arguments", "parameters"})
_MEMBERS = ARGUMENTS | {"name", "type", "id", "function"}


class JsonCall:
    """Reads one object. As soon as the name is known and the arguments begin, both are told; where the name comes later, or the
    arguments are no object, everything is when the object ends.

    ``held``: what has been read and not told. ``begun``: the call has been. ``complete``: so have been all of its arguments.
    """

    def __init__(self, pieces: Pieces, bare: bool = False) -> None:
        """Tell ``pieces``. ``bare``: nothing but its members tells a call from an answer that is JSON."""
        self.held: list[str] = []
        self.begun = self.complete = False
        self._pieces = pieces
        self._bare = bare
        self._scan = JsonScan()
        self._arguments: JsonScan | None = None
        self._string: list[str] = []  # of the object itself, the last that has begun
        self._key = ""
        self._name: str | None = None
        self._expects_value = False

    def step(self, character: str) -> Scan:
        """Take in one more character. If that is none of the object, it is not held either."""
        if self._arguments is not None and not self.complete:
            return self._argue(character)
        string, depth = self._scan.in_string, self._scan.depth
        scan = self._scan.step(character)
        if scan is Scan.IS_NONE:
            return scan
        if depth == 1 and not self.begun and not self._understands(character, string):
            return Scan.IS_NONE
        if self._arguments is not None and not self.complete:
            return Scan.GOES_ON  # they have just begun, with this character
        self.held.append(character)
        if scan is Scan.IS_OVER and not self.begun and not self._told_whole():
            self.held.pop()
            return Scan.IS_NONE
        return scan

    def _understands(self, character: str, string: bool) -> bool:
        """Read a character among the object's own members; False if they are not those of a call."""
        if string:
            if self._scan.in_string:
                self._string.append(character)
        elif character == '"':
            self._string = []
            self._expects_value = False
        elif character == ":":
            self._key = "".join(self._string)
            self._expects_value = True
            return not self._bare or self._key in _MEMBERS
        elif character == ",":
            self._note_name()
        elif character == "{" and self._expects_value and self._key in ARGUMENTS and self._name is not None:
            self._begin(self._name)
        elif not character.isspace():
            self._expects_value = False
        return True

    def _note_name(self) -> None:
        if self._key == "name" and self._name is None:
            name = _decoded('"' + "".join(self._string) + '"')
            self._name = name if isinstance(name, str) and name else None

    def _begin(self, name: str) -> None:
        self.begun = True
        self.held.clear()
        self._pieces.begin_call(name)
        self._arguments = JsonScan()
        self._argue("{")

    def _argue(self, character: str) -> Scan:
        """The arguments' own text."""
        assert self._arguments is not None
        scan = self._arguments.step(character)
        if scan is Scan.IS_NONE:
            return scan
        self._pieces.add(CallArguments, character)
        if scan is Scan.IS_OVER:
            self.complete = True
            self._scan.step("}")
        return Scan.GOES_ON

    def _told_whole(self) -> bool:
        """Tell the call that the whole object is, if it is one."""
        call = _decoded("".join(self.held))
        name = call.get("name") if isinstance(call, dict) else None
        given = [call[key] for key in ARGUMENTS if key in call] if isinstance(call, dict) else []
        if not isinstance(name, str) or not name or (self._bare and not given):
            return False
        arguments = given[0] if given else {}
        self.begun = self.complete = True
        self.held.clear()
        self._pieces.begin_call(name)
        text = arguments if isinstance(arguments, str) else json.dumps({} if arguments is None else arguments, ensure_ascii=False)
        self._pieces.add(CallArguments, text)
        return True


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return None
