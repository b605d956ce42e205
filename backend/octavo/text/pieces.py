"""What an answer consists of: thoughts, content, and calls of tools. Knows no model and no wire."""

from typing import NamedTuple, TypeAlias


class Thought(NamedTuple):
    """Text that the model wrote for itself."""

    text: str


class Content(NamedTuple):
    """Text for whoever asked."""

    text: str


class CallBegun(NamedTuple):
    """A call of the tool ``name``; its arguments follow."""

    name: str


class CallArguments(NamedTuple):
    """The next characters of the last call's arguments, which are JSON unless the model erred."""

    text: str


Piece: TypeAlias = Thought | Content | CallBegun | CallArguments


class Pieces:
    """Pieces in the order in which they come; what has just come of the same kind is one piece."""

    def __init__(self) -> None:
        """There is none."""
        self._pieces: list[Piece] = []
        self._kind: type[Thought | Content | CallArguments] = Content
        self._texts: list[str] = []

    def add(self, kind: type[Thought | Content | CallArguments], text: str) -> None:
        """More text of a kind."""
        if kind is not self._kind:
            self._close()
            self._kind = kind
        self._texts.append(text)

    def begin_call(self, name: str) -> None:
        """A call of ``name``."""
        self._close()
        self._pieces.append(CallBegun(name))

    def take(self) -> list[Piece]:
        """All of them, which are then forgotten."""
        self._close()
        taken, self._pieces = self._pieces, []
        return taken

    def _close(self) -> None:
        text = "".join(self._texts)
        self._texts.clear()
        if text:
            self._pieces.append(self._kind(text))
