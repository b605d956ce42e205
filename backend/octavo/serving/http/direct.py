"""``Direct``: how a body of many small pieces leaves without a coroutine for each. Knows nothing of what it carries."""

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from octavo.serving.http2.turn import Turn

EXTENSION = "octavo.direct"


class Direct:
    """The way of one reply to its connection, past ASGI: an extension of the request's scope.

    The reply is begun and ended by ASGI's messages, so that whatever wraps ``send`` sees both; what lies between is written
    here, framed as its header says. ``turn``: of the event loop, at whose end a reply had best say all that the turn brought it.
    """

    __slots__ = ("_cycle", "_framed", "_out", "_silent", "turn")

    def __init__(self, cycle: RequestResponseCycle, turn: Turn) -> None:
        """Nothing was sent of the reply."""
        self._cycle, self.turn = cycle, turn
        self._out = b""
        self._silent = cycle.scope["method"] == "HEAD"
        self._framed = cycle.scope["http_version"] != "1.0"

    @property
    def full(self) -> bool:
        """Whether the client does not keep up, so that nothing more may be written until it was waited for (``drained``)."""
        return self._cycle.flow.write_paused

    async def drained(self) -> None:
        """Wait until the client has kept up, or is gone."""
        await self._cycle.flow.drain()

    def begin(self) -> None:
        """To be called before the reply is begun. HTTP/1.0 knows no chunks: there the end of the connection ends the body."""
        if not self._framed:
            self._cycle.chunked_encoding = False

    def write(self, data: bytes) -> None:
        """Let more of the body, which must not be nothing, leave at the end of this turn of the loop."""
        if not self._out:
            self.turn.flush(self.flush)
        self._out += data

    def flush(self) -> None:
        """Let it leave now. Does nothing if the client is gone."""
        data, self._out = self._out, b""
        cycle = self._cycle
        if data and not (cycle.disconnected or self._silent):
            cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._framed else data)


def direct(scope: Scope) -> Direct:
    """The way of the reply to the request of ``scope``."""
    way: Direct = scope["extensions"][EXTENSION]
    return way
