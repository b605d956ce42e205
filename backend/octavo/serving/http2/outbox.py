"""``Outbox``: what a call sends, as far as the client's windows let it. Holds one message that has to wait, and the last frame."""

from collections.abc import Callable
from typing import Protocol

from octavo.serving.http2.frames import DATA, HEAD, MAX_WINDOW, MESSAGE_HEAD, PREFIX

_prefixed = MESSAGE_HEAD.pack
_PREFIX_SIZE = PREFIX.size


class Way(Protocol):
    """The connection. ``window``: what its client still takes, ``max_frame``: in one frame. ``sent`` counts frames of calls.

    ``congested``: its socket is full, and nothing should be sent that can wait.
    """

    window: int
    max_frame: int
    sent: int
    congested: bool

    def send(self, data: bytes) -> None:
        """Let frames leave at the end of this turn of the loop."""

    def flush(self) -> None:
        """Let them leave now."""

    def wait(self, number: int) -> None:
        """Call the ``go_on`` of that stream when the connection can take more."""


class Outbox:
    """The way out of one stream. ``window``: what its client still takes of it; ``waiting``: a message that is not out, if any."""

    __slots__ = ("_at", "_drained", "_last", "_number", "_way", "waiting", "window")

    def __init__(self, way: Way, number: int, window: int, drained: Callable[[], None]) -> None:
        """Nothing waits; ``drained`` is called when nothing does any more."""
        self._way, self._number, self.window, self._drained = way, number, window, drained
        self.waiting: memoryview | None = None
        self._last: bytes | None = None
        self._at = 0

    def message(self, message: bytes, packed: int) -> None:
        """Send a message, or as much of it as may be sent; to be called while none is ``waiting``."""
        way, length = self._way, len(message)
        size = length + _PREFIX_SIZE
        if size <= self.window and size <= way.window and size <= way.max_frame and not way.congested:
            self.window -= size
            way.window -= size
            way.sent += 1
            way.send(_prefixed(size >> 8, size & 0xFF, DATA, 0, self._number, packed, length) + message)
            return
        self.waiting, self._at = memoryview(PREFIX.pack(packed, length) + message), 0
        self._push()

    def last(self, frame: bytes) -> None:
        """Send ``frame`` after everything else."""
        if self.waiting is None:
            self._way.sent += 1
            self._way.send(frame)
        else:
            self._last = frame

    def push(self) -> None:
        """Send what may be sent by now, and tell if nothing waits any more."""
        if self.waiting is not None:
            self._push()
            if self.waiting is None:
                self._drained()

    def widen(self, by: int) -> bool:
        """The client takes ``by`` bytes more of this stream, or fewer; whether there is such a window."""
        self.window += by
        if self.window > MAX_WINDOW:
            return False
        if by > 0:
            self.push()
        return True

    def close(self) -> None:
        """Nothing can be sent any more."""
        self.waiting = self._last = None

    def _push(self) -> None:
        way, waiting = self._way, self.waiting
        assert waiting is not None
        while self._at < len(waiting):
            if way.congested or way.window <= 0:
                way.wait(self._number)
                return
            size = min(self.window, way.window, way.max_frame, len(waiting) - self._at)
            if size <= 0:
                return
            self.window -= size
            way.window -= size
            way.sent += 1
            way.send(HEAD.pack(size >> 8, size & 0xFF, DATA, 0, self._number) + waiting[self._at : self._at + size])
            self._at += size
            if self._at < len(waiting):
                way.flush()
        self.waiting = None
        if self._last is not None:
            way.send(self._last)
