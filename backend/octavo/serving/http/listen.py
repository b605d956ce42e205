"""``HttpServer``: an ASGI application on a listening socket, inside an event loop that is not uvicorn's own."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from octavo.serving.http.direct import EXTENSION, Direct
from octavo.serving.http.errors import error_json
from octavo.serving.http2.turn import Turn
from octavo.serving.tls import TlsFiles

HEADER_PATIENCE = 60.0
# When it is first asked whether a client that has closed its side is still there; then after twice as long each time.
_FIRST_PROBE, _LONGEST_PAUSE = 0.2, 5.0
_PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"
# What one read may bring beyond a header that is about to be whole.
_LARGEST_READ = 256 * 1024


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: signals belong to the process, not to one of its ports."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class _Parser(httptools.HttpRequestParser):
    """Uvicorn's, for ``LimitedProtocol``: a request that asks for another protocol is read again as one that does not.

    The parser takes what follows such a header for that protocol's, and passes over the request's body.
    """

    def __init__(self, protocol: "LimitedProtocol") -> None:
        super().__init__(protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)
        self._protocol = protocol

    def feed_data(self, data: Any) -> None:
        """Read on."""
        parser, rest = self, memoryview(data)
        while rest:
            try:
                httptools.HttpRequestParser.feed_data(parser, rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if not self._protocol.upgrading:
                    raise
                rest, header = rest[upgrade.args[0] :], self._protocol.plain_header()
                # By another parser: this one reads nothing more if the connection is to end with the request.
                self._protocol.parser = parser = _Parser(self._protocol)
                httptools.HttpRequestParser.feed_data(parser, header)


class LimitedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with limits for a request's first line and header fields, which its parser lacks.

    Fields are counted as they become whole, and what is read while none does is counted too, so that neither many fields
    nor one without an end can fill the memory. A header that is not whole after ``HEADER_PATIENCE`` seconds ends its
    connection; between requests uvicorn's own, shorter patience holds.

    A client that closes its side after a whole request, as ``nc -N`` does, still gets its answer. One that has gone for good
    sends nothing else, so it is told to continue, which every client ignores, until its host says that nobody is there.

    Whoever answers hears that the client is gone, also while others wait behind it: uvicorn tells the newest request alone.

    No request becomes one of another protocol: ``upgrading`` while one that asks for that is not yet read again without asking.

    Every request offers its ``Direct``; ``turn`` is that of the server's event loop.
    """

    max_header = 16 * 1024
    turn: Turn
    upgrading = False
    _counted = 0
    _unread = 0
    _in_header = True
    _refused = False
    _patience: asyncio.TimerHandle | None = None
    _probing: asyncio.TimerHandle | None = None
    _answering: RequestResponseCycle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Uvicorn calls."""
        super().__init__(*args, **kwargs)
        self.parser = _Parser(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first header is waited for."""
        super().connection_made(transport)
        self._wait_for_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for."""
        self._stop_waiting()
        if self._probing is not None:
            self._probing.cancel()
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether the connection stays open, for an answer to what has come whole. (TLS knows no half of a connection.)"""
        cycle = self.cycle
        whole = cycle is not None and not cycle.more_body and not self._unread and not self._refused
        if not whole or cycle.response_complete or self.scheme == "https":
            return False
        self._stop_waiting()
        cycle.keep_alive = False
        if self._probing is None:
            self._probe_after(_FIRST_PROBE)
        return True

    def data_received(self, data: bytes) -> None:
        """Read on, unless the header is over the limit."""
        if self._refused:
            return
        self._unread += len(data) if self._in_header else 0
        super().data_received(data)
        if self._in_header and self._unread:
            self._wait_for_header()
        if self._refused or (self._in_header and self._unread > self.max_header + _LARGEST_READ):
            self._refuse()

    def plain_header(self) -> bytes:
        """The header that has just been read, without the field that asks for another protocol."""
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % field for field in self.headers if field[0] != b"upgrade"]
        return b"\r\n".join((*lines, b"", b""))

    def on_message_begin(self) -> None:
        """A request begins."""
        self._counted, self._unread, self._in_header, self.upgrading = 0, 0, True, False
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field is whole. One too many is not kept."""
        self._count(len(name) + len(value))
        if not self._refused:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The application is called, unless the header is refused or read again."""
        self.upgrading = not self._refused and self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if self.upgrading:
            return
        self._in_header = False
        self._stop_waiting()
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole; the next one's header may follow."""
        self._unread, self._in_header = 0, True
        if not self._refused and not self.upgrading:
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        cycle.scope["extensions"] = {EXTENSION: Direct(cycle, self.turn)}  # type: ignore[dict-item]
        super()._start_asgi_task(cycle, app)

    def _probe_after(self, seconds: float) -> None:
        self._probing = self.loop.call_later(seconds, self._probe, seconds)

    def _probe(self, waited: float) -> None:
        """Write something that fails if the client has gone. Once an answer has begun, that does."""
        if self.transport.is_closing() or self.cycle.response_started:
            return
        if self.cycle.scope["http_version"] == "1.0":
            self.transport.close()  # such a client takes nothing before its answer, and has gone as a rule
            return
        if not self.pipeline:  # or an earlier answer is on its way
            self.transport.write(_PROBE)
        self._probe_after(min(2 * waited, _LONGEST_PAUSE))

    def _wait_for_header(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(HEADER_PATIENCE, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _count(self, size: int) -> None:
        self._counted += size
        self._refused = self._refused or self._counted > self.max_header

    def _refuse(self) -> None:
        self._refused = True
        if self.transport.is_closing():
            return
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        body = error_json(f"The header of a request must have at most {self.max_header} bytes.")
        head = f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(f"{head}connection: close\r\n\r\n".encode() + body)
        self.transport.close()


class HttpServer:
    """One running HTTP server; ``close`` ends it."""

    def __init__(
        self, app: ASGIApp, listener: socket.socket, tls: TlsFiles | None = None, max_header: int = LimitedProtocol.max_header
    ) -> None:
        """Serve ``app`` on ``listener`` from now on. A request's header has at most ``max_header`` bytes."""
        turn = Turn(asyncio.get_running_loop())
        config = uvicorn.Config(
            app,
            http=type("Protocol", (LimitedProtocol,), {"max_header": max_header, "turn": turn}),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            **(_tls_arguments(tls) if tls is not None else {}),
        )
        self._server = _Server(config)
        self._task = asyncio.ensure_future(self._server.serve(sockets=[listener]))

    async def close(self) -> None:
        """Stop listening and end what is open."""
        self._server.should_exit = True
        await asyncio.wait({self._task})


def _tls_arguments(files: TlsFiles) -> dict[str, Any]:
    who = ssl.CERT_REQUIRED if files.root is not None else ssl.CERT_NONE
    return {"ssl_certfile": files.certificate, "ssl_keyfile": files.key, "ssl_ca_certs": files.root, "ssl_cert_reqs": who}
