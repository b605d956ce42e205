"""Listening ports that several processes share: checked to be free, then held by sockets that are bound and never listen."""

import socket
from types import TracebackType
from typing import Self


class PortTaken(Exception):
    """A port that we were told to listen on belongs to somebody else."""


class Reservation:
    """One port that is ours until ``close``. Our processes listen on it beside this socket, by ``SO_REUSEPORT``."""

    def __init__(self, what: str, address: str, port: int) -> None:
        """Reserve ``port`` (0: any free one) of ``address`` for ``what``; raises ``PortTaken``."""
        self.address = address
        try:
            with _bound(address, port, shared=False) as probe:
                chosen = int(probe.getsockname()[1])
            self._socket = _bound(address, chosen, shared=True)
        except OSError as error:
            reason = error.strerror or "the address cannot be resolved"
            raise PortTaken(f"The {what} port {port} of address {address} cannot be used: {reason}.") from error
        self.port = chosen

    def __enter__(self) -> Self:
        """The reservation itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give the port back."""
        self.close()

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()


def listener(address: str, port: int) -> socket.socket:
    """A socket that listens on a reserved port; the kernel spreads connections over all such sockets."""
    listening = _bound(address, port, shared=True)
    listening.listen(1024)
    listening.setblocking(False)
    return listening


def authority(address: str, port: int) -> str:
    """``address:port`` as gRPC and URLs write it, with IPv6 in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach ``address``."""
    return address in {"localhost", "::1"} or address.startswith("127.")


def _bound(address: str, port: int, shared: bool) -> socket.socket:
    family, kind, protocol, _, target = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(target)
    except OSError:
        bound.close()
        raise
    return bound
