"""Server-sent events as the OpenAI API frames them."""

import msgspec

DONE = b"data: [DONE]\n\n"
# Stands for the text of a ``TextEvent`` and for the number of a ``NumberedTextEvent`` in the event that they are made from.
BLANK, NUMBER = "\0", 0
_encode = msgspec.json.Encoder().encode
_BLANK = _encode(BLANK)
_NUMBER = b'"sequence_number":'


def event(data: bytes) -> bytes:
    """One event without a name."""
    return b"data: " + data + b"\n\n"


def named_event(name: str, data: bytes) -> bytes:
    """One event with a name."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


class TextEvent:
    """An event of which nothing but a text changes: the rest is encoded once for a request, and not once for a token."""

    __slots__ = ("_head", "_tail")

    def __init__(self, event: bytes) -> None:
        """``event`` has ``BLANK`` for its text, behind which nothing stands that a client can choose."""
        self._head, _, self._tail = event.rpartition(_BLANK)

    def of(self, text: str) -> bytes:
        """The event of ``text``."""
        return self._head + _encode(text) + self._tail


class NumberedTextEvent:
    """A ``TextEvent`` that also has a number of its own."""

    __slots__ = ("_event", "_head")

    def __init__(self, event: bytes) -> None:
        """``event`` has ``NUMBER`` for its number, before which nothing stands that a client can choose."""
        head, name, rest = event.partition(_NUMBER)
        self._head, self._event = head + name, TextEvent(rest.removeprefix(b"%d" % NUMBER))

    def of(self, number: int, text: str) -> bytes:
        """The event of ``text``."""
        return b"%b%d%b" % (self._head, number, self._event.of(text))
