"""``Line``: frames over a Unix stream socket, either end of it, without ever waiting. Knows no message.

A frame is its length, four bytes in the machine's order, and as many bytes. Who uses a line reads and writes it: on its way from
one process to the other a frame wakes no thread but the one that waits for it.
"""

import contextlib
import socket
import struct

_LENGTH = struct.Struct("=I")
_PIECE, _PIECES = 65_536, 16


class Line:
    """One end. What the other does not take yet waits here, and is sent by ``flush`` once the socket can be written to.

    ``stuck``: whether anything waits. ``longest``: how many bytes a frame may have that is taken, None for any number.
    """

    __slots__ = ("_come", "_socket", "_unsent", "longest", "stuck")

    def __init__(self, connected: socket.socket, longest: int | None = None) -> None:
        """Take a socket over."""
        connected.setblocking(False)
        self._socket, self.longest = connected, longest
        self._come, self._unsent = bytearray(), bytearray()
        self.stuck = False

    def fileno(self) -> int:
        """The descriptor, to be polled."""
        return self._socket.fileno()

    def send(self, frame: bytes) -> None:
        """Send a frame after those before it. Raises ``OSError`` if nobody is there to take it."""
        data = _LENGTH.pack(len(frame)) + frame
        if self.stuck:
            self._unsent += data
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._unsent += data[sent:]
            self.stuck = True

    def flush(self) -> None:
        """Send what waits, as much as the socket takes. Raises as ``send`` does."""
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            return
        self.stuck = bool(self._unsent)

    def read(self) -> bool:
        """Read what has come, up to a megabyte, for ``take``; False if nothing more will come."""
        for _ in range(_PIECES):
            try:
                data = self._socket.recv(_PIECE)
            except BlockingIOError:
                return True
            except OSError:
                return False
            self._come += data
            if len(data) < _PIECE:
                return bool(data)
        return True

    def take(self) -> bytes | None:
        """The next frame, if all of it was read. Raises ``ValueError`` if it is longer than it may be."""
        come = self._come
        if len(come) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(come)
        if self.longest is not None and length > self.longest:
            raise ValueError(f"A frame must have at most {self.longest} bytes here, got {length}.")
        end = _LENGTH.size + length
        if len(come) < end:
            return None
        frame = bytes(memoryview(come)[_LENGTH.size : end])
        del come[:end]
        return frame

    @property
    def unread(self) -> bool:
        """Whether there is more to ``take``, if only a part of a frame."""
        return bool(self._come)

    def close(self, patience: float = 0) -> None:
        """Hang up, once what waits is sent; whoever is on the other side has so many seconds to make room for it."""
        if self.stuck:
            self._socket.settimeout(patience)
            with contextlib.suppress(OSError):
                self._socket.sendall(self._unsent)
        self._socket.close()
