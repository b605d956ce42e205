"""``Server``: answers gRPC calls on a listening socket, and ends without losing one."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from octavo.serving.http2.call import Call, Handler
from octavo.serving.http2.connection import Connection, Host
from octavo.serving.http2.limits import Limits
from octavo.serving.http2.turn import Turn

BACKLOG = 1024
HANDSHAKE_PATIENCE = 10.0
UNPACKING_THREADS = 2


class Server:
    """One server in the running event loop."""

    def __init__(self, limits: Limits, route: Callable[[Call], Handler]) -> None:
        """``route`` says who answers a call, or raises ``CallRefused``; nothing listens yet."""
        self._connections: set[Connection] = set()
        self._left = asyncio.Event()
        threads = ThreadPoolExecutor(UNPACKING_THREADS, thread_name_prefix="unpack")
        self._host = Host(limits, route, Turn(asyncio.get_running_loop()), threads, self._connections, self._left)
        self._server: asyncio.Server | None = None

    async def listen(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Take connections on a socket that listens."""
        patience = HANDSHAKE_PATIENCE if tls is not None else None
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self._host), sock=listener, ssl=tls, backlog=BACKLOG, ssl_handshake_timeout=patience
        )

    async def close(self, patience: float) -> None:
        """Take no more connections or calls, and end when the open calls have, at the latest after ``patience`` seconds."""
        self._host.closing = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.retire()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._connections:
                    self._left.clear()
                    await self._left.wait()
        for connection in list(self._connections):
            connection.abort()
        self._host.threads.shutdown(wait=False, cancel_futures=True)
