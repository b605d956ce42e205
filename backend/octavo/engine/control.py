"""What an engine and its supervisor say to each other about the engine itself. No request and no token passes here.

The engine holds a DEALER whose routing id is ``EngineSpec.identity``; the supervisor binds a ROUTER. One msgpack struct a message.
"""

import logging
from collections.abc import Iterator
from typing import cast

import msgspec
import zmq

from octavo.config import EngineConfig
from octavo.engine.messages import EngineInfo, EngineStats, Picture
from octavo.errors import ErrorFrame
from octavo.logs import LogSettings

log = logging.getLogger(__name__)
# As plain numbers: pyzmq's are enumerations, which cost as much as the calls that they are given to.
_NOBLOCK, _READABLE = int(zmq.NOBLOCK), int(zmq.POLLIN)


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that an engine process is started with, as JSON on its standard input.

    ``requests`` is the path of the socket on which it listens for front ends, ``control`` its supervisor's ipc address,
    ``identity`` the name that it goes by there, ``parent`` the supervisor's process id: the engine dies with it. With
    ``check_only`` it looks whether the weights are whole, without a device, and exits.
    """

    config: EngineConfig
    requests: str
    control: str
    identity: str
    parent: int
    logs: LogSettings = LogSettings()
    check_only: bool = False


class EngineReady(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Engine to supervisor: the model is loaded and requests are welcome."""

    info: EngineInfo


class EngineFailed(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Engine to supervisor: loading or a step failed with this first cause; the process exits non-zero next."""

    error: ErrorFrame


class StatsReply(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Engine to supervisor: the answer to ``StatsQuery``."""

    stats: EngineStats


class PictureReply(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Engine to supervisor: the answer to ``PictureQuery``."""

    picture: Picture


class StatsQuery(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Supervisor to engine: answer with a ``StatsReply`` between two steps."""


class PictureQuery(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Supervisor to engine: answer with a ``PictureReply`` between two steps."""


class FrontEndGone(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Supervisor to engine: the front end with this process id has died; abort all it asked for."""

    pid: int


class ChangeLogs(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Supervisor to engine: log like this from now on."""

    logs: LogSettings


EngineReport = EngineReady | EngineFailed | StatsReply | PictureReply
EngineOrder = StatsQuery | PictureQuery | FrontEndGone | ChangeLogs

_encoder = msgspec.msgpack.Encoder()
_orders: msgspec.msgpack.Decoder[EngineOrder] = msgspec.msgpack.Decoder(EngineOrder)


def encode(message: EngineReport | EngineOrder) -> bytes:
    """The frame of one message, either way."""
    return _encoder.encode(message)


class ControlChannel:
    """The engine's end.

    Its descriptor tells once of what comes, perhaps to who sends a ``report``: ask for what is ``pending`` before every wait.
    """

    def __init__(self, address: str, identity: str) -> None:
        """Connect to the supervisor at ``address``; nobody has to be there yet."""
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, identity.encode())
        self._socket.connect(address)

    def fileno(self) -> int:
        """The descriptor, to be polled."""
        return self._socket.fileno()

    def pending(self) -> bool:
        """Whether an order is there. To find that none is by reading costs an exception."""
        return bool(cast(int, self._socket.get(zmq.EVENTS)) & _READABLE)

    def report(self, report: EngineReport) -> None:
        """Tell the supervisor, without waiting for it."""
        self._socket.send(encode(report), _NOBLOCK)

    def orders(self) -> Iterator[EngineOrder]:
        """The orders that have arrived; a malformed one is logged and dropped."""
        while self.pending():
            order = self._socket.recv(_NOBLOCK)
            try:
                yield _orders.decode(order)
            except ValueError as error:  # of msgspec, or a text that is none
                log.warning("Dropped a malformed order: %s", error)
