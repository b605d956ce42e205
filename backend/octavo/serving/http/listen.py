"""``serve_http``: an ASGI application on a listening socket, inside an event loop that is not uvicorn's own."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: signals belong to the process, not to one of its ports."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class HttpServer:
    """One running HTTP server; ``close`` ends it."""

    def __init__(self, app: Starlette, listener: socket.socket) -> None:
        """Serve ``app`` on ``listener`` from now on."""
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._task = asyncio.ensure_future(self._server.serve(sockets=[listener]))

    async def close(self) -> None:
        """Stop listening and end what is open."""
        self._server.should_exit = True
        await asyncio.wait({self._task})
