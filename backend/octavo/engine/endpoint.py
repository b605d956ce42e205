"""The engine's door for front ends: a ZeroMQ ROUTER, msgpack frames, one frame per step per front end. Knows no scheduling.

A front end is named by its socket's routing id, ``<process id>.<number>`` (see ``octavo.engine.client``).
"""

import logging
from collections.abc import Iterable, Iterator, Mapping

import msgspec
import zmq

from octavo.engine.messages import EngineCommand, EngineFrame
from octavo.engine.sockets import MORE, NOBLOCK, readable
from octavo.errors import OctavoError

log = logging.getLogger(__name__)


class Endpoint:
    """Binds ``address`` (ipc, in a private directory) and never waits but in ``wait``."""

    def __init__(self, address: str) -> None:
        """Bind; front ends may connect from now on.

        Sends never block and never drop: what a stalled front end has not read is bounded by the requests it has open.
        """
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.bind(address)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._encoder = msgspec.msgpack.Encoder()
        self._commands: msgspec.msgpack.Decoder[EngineCommand] = msgspec.msgpack.Decoder(EngineCommand)

    def watch(self, socket: zmq.Socket[bytes]) -> None:
        """Let ``wait`` return for this socket too."""
        self._poller.register(socket, zmq.POLLIN)

    def wait(self, others: Iterable[int] = (), seconds: float | None = None) -> None:
        """Sleep until there is something to read, here or from one of the file descriptors ``others``, at most for ``seconds``."""
        others = [*others]
        for other in others:
            self._poller.register(other, zmq.POLLIN)
        try:
            self._poller.poll(None if seconds is None else int(1000 * seconds) + 1)
        finally:
            for other in others:
                self._poller.unregister(other)

    def has_something(self) -> bool:
        """Whether ``wait`` would return at once."""
        return bool(self._poller.poll(0))

    def commands(self) -> Iterator[tuple[bytes, EngineCommand]]:
        """What has arrived, as (front end, command); a malformed frame is logged and dropped."""
        while readable(self._socket):
            client, *frames = self._socket.recv_multipart(NOBLOCK)
            try:
                yield client, self._commands.decode(b"".join(frames))
            except (msgspec.MsgspecError, OctavoError) as error:
                log.warning("Dropped a malformed frame of front end %r: %s", client, error)

    def send(self, frames: Mapping[bytes, EngineFrame]) -> list[bytes]:
        """Send every front end its frame; returns the front ends that are no longer there."""
        return [client for client, frame in frames.items() if not self._send(client, frame)]

    def _send(self, client: bytes, frame: EngineFrame) -> bool:
        try:
            self._socket.send(client, NOBLOCK | MORE)
            self._socket.send(self._encoder.encode(frame), NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        return True
