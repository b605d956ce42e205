"""A real server to be fuzzed, and what must hold of it afterwards."""

import contextlib
import select
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from server import Server, running
from tiny import write_model, write_snapshot

from fuzz.finding import Finding

WirePart = Callable[[Server, int, int], Counter[str]]
BUGS = ("Internal error", "Unexpected", " ERROR ", " CRITICAL ")
PATIENCE = 20.0
LOGGED = 3000  # characters


@contextlib.contextmanager
def fuzzed_server() -> Iterator[Server]:
    """A server with one short model."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        write_snapshot(folder / "snapshot")
        write_model(folder / "models", "tiny", folder / "snapshot", max_model_len=64)
        flags = ("--model-control-mode=explicit", "--load-model=tiny")
        with running(folder / "models", *flags, log=folder / "log") as server:
            yield server


@contextlib.contextmanager
def unharmed(server: Server) -> Iterator[None]:
    """After the block ``server`` must be ready, with every page free, the same processes and no error in its log."""
    born = _lasting(server)
    try:
        yield
    except (Finding, OSError) as finding:
        finding.add_note(f"The log ends with: {server.log.read_text()[-LOGGED:]}")
        raise
    server.wait_until_free()
    if server.get("/v2/health/ready")[0] != 200 or _lasting(server) != born:
        raise Finding(None, "a process has died, or the server is not ready any more")
    log = server.log.read_text()
    found = min((log.find(bug) for bug in BUGS if bug in log), default=None)
    if found is not None:
        raise Finding(None, log[max(0, found - 200) :][:LOGGED])


def over_the_wire(part: WirePart, count: int, seed: int) -> Counter[str]:
    """Run ``part`` on a server of its own. Raises ``Finding``."""
    with fuzzed_server() as server, unharmed(server):
        return part(server, count, seed)


def _lasting(server: Server) -> list[int]:
    """The processes that nothing may end. (Those that render templates and follow grammars come and go.)"""
    return [process.pid for name in ("frontend", "engine") for process in server.processes(name)]


def exchange(address: str, data: bytes, silence: float) -> bytes:
    """Send ``data`` on a connection of its own, wait for an answer until ``silence`` seconds bring nothing, and half-close.

    Then the server must hang up. All that it said.
    """
    host, port = address.rsplit(":", 1)
    said = b""
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(data)
        while select.select([connection], [], [], silence)[0] and (part := connection.recv(1 << 16)):
            said += part
        connection.shutdown(socket.SHUT_WR)
        try:
            while part := connection.recv(1 << 16):
                said += part
        except TimeoutError:
            raise Finding(data, "the server does not hang up") from None
    return said
