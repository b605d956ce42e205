"""``Hub``: the supervisor's end of a control socket, one per kind of child. Moves typed messages and knows no meaning."""

import logging
from collections.abc import AsyncIterator
from typing import Any, Generic, TypeVar

import msgspec
import zmq
import zmq.asyncio

log = logging.getLogger(__name__)
Incoming = TypeVar("Incoming")


class Hub(Generic[Incoming]):
    """A ROUTER socket at ``address``. A message to a child that is gone is dropped, as its death is noticed elsewhere."""

    def __init__(self, context: zmq.asyncio.Context, address: str, incoming: Any) -> None:
        """Bind; ``incoming`` is the union of the message types that children may send."""
        self.address = address
        self._decoder: msgspec.msgpack.Decoder[Incoming] = msgspec.msgpack.Decoder(incoming)
        self._encoder = msgspec.msgpack.Encoder()
        self._socket = context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.sndhwm = self._socket.rcvhwm = 0
        self._socket.bind(address)

    def send(self, identity: bytes, message: msgspec.Struct) -> None:
        """Send to one child; never waits."""
        self._socket.send_multipart([identity, self._encoder.encode(message)])

    async def receive(self) -> AsyncIterator[tuple[bytes, Incoming]]:
        """``(identity, message)`` of everything that comes, for ever."""
        while True:
            identity, *frames = await self._socket.recv_multipart()
            try:
                yield identity, self._decoder.decode(b"".join(frames))
            except ValueError:
                log.exception("A child sent a control message that cannot be read.")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
