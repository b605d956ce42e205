"""``Link``: a front end's line to its supervisor: typed messages both ways, and calls that have an answer."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable

import msgspec
import zmq
import zmq.asyncio

from octavo.serving.control import Call, CallReply, FrontEndMessage, SupervisorMessage


class Link:
    """A DEALER socket named after the front end's number."""

    def __init__(self, address: str, number: int, patience: float) -> None:
        """Connect; must be called inside a running event loop. A supervisor may be silent for ``patience`` seconds."""
        self._patience, self._heard_at = patience, time.monotonic()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[SupervisorMessage] = msgspec.msgpack.Decoder(SupervisorMessage)
        self._socket = zmq.asyncio.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IDENTITY, f"front-end-{number}".encode())
        self._socket.sndhwm = self._socket.rcvhwm = 0
        self._socket.linger = 1000
        self._socket.connect(address)
        self._numbers = itertools.count()
        self._calls: dict[int, asyncio.Future[CallReply]] = {}

    def send(self, message: FrontEndMessage) -> None:
        """Tell the supervisor; never waits."""
        self._socket.send(self._encoder.encode(message))

    async def receive(self) -> AsyncIterator[SupervisorMessage]:
        """What the supervisor says, but for the answers to calls, for ever."""
        while True:
            message = self._decoder.decode(await self._socket.recv())
            self._heard_at = time.monotonic()
            if isinstance(message, CallReply):
                self._answer(message)
            else:
                yield message

    @property
    def silent(self) -> bool:
        """Whether the supervisor hangs: it asks every front end for its counters every few seconds, whatever else it does."""
        return time.monotonic() - self._heard_at > self._patience

    async def call(self, make: Callable[[int], Call]) -> CallReply:
        """The supervisor's answer to ``make(number)``; raises the ``OctavoError`` that it answers with."""
        number = next(self._numbers)
        self._calls[number] = asyncio.get_running_loop().create_future()
        try:
            self.send(make(number))
            reply = await self._calls[number]
        finally:
            del self._calls[number]
        if reply.error is not None:
            raise reply.error.exception()
        return reply

    def close(self) -> None:
        """Close, once what was sent is on its way."""
        self._socket.close()

    def _answer(self, reply: CallReply) -> None:
        waiting = self._calls.get(reply.call)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)
