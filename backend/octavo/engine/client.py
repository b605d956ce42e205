"""``EngineClient``: a front end's line to one engine, in its event loop. Knows no text and no transport.

Reads the socket itself: no task, no future and no lock per frame or token. A turn of the loop hands over one frame, so that each
leaves as it came; while that does not keep up it hands over twice as many as the turn before.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import socket
from typing import Protocol, cast

import msgspec

from octavo.engine.messages import Abort, EngineFrame, EngineOutput, EngineRequest, FinishReason, Submit
from octavo.engine.sockets import Line
from octavo.errors import EngineDead, ErrorFrame, InvalidRequest, OctavoError

log = logging.getLogger(__name__)

FRAMES_PER_TURN = 64
# Enough to begin with, where a turn brings many: to read each of the others takes some tenths of a millisecond.
REQUESTS_PER_FRAME = 8
_SINK_FAILED = "A sink failed on an output of its request"
_numbers = itertools.count(1)


class Sink(Protocol):
    """Takes in what an engine makes for one request."""

    def hear(self, output: EngineOutput) -> None:
        """Anything."""

    def hear_token(self, token_id: int) -> None:
        """One more token, and nothing else to say: most of what there is, so it must not cost much."""


class EngineClient:
    """Submits requests and hands each output to its request's sink, in the event loop, in order.

    After an output with ``finish`` a sink hears nothing more. What is submitted or aborted in one turn of the loop travels in one
    frame, or in a few where it is much; the samples of one request travel, and start, together.
    """

    def __init__(self, address: str) -> None:
        """Connect to where an engine listens; must be called inside a running event loop.

        Of an engine that is not there any more nothing is heard: whoever watches its process says so with ``fail_all``.
        """
        self._loop = asyncio.get_running_loop()
        self._sinks: dict[int, Sink] = {}
        self._ids = itertools.count(1)
        self._submitted: list[msgspec.Raw] = []
        self._aborted: list[int] = []
        self._failure: ErrorFrame | None = None
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(EngineFrame)
        self._at_once, self._behind = 1, False
        self._line: Line | None = None
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(address)
        except OSError:
            connection.close()
            return
        self._line = Line(connection)
        self._loop.add_reader(connection.fileno(), self._read)
        self._send(b"%d.%d" % (os.getpid(), next(_numbers)))

    def next_id(self) -> int:
        """A request id that this client has not used."""
        return next(self._ids)

    def submit(self, request: EngineRequest, sink: Sink) -> None:
        """Send ``request``; ``sink`` gets its outputs.

        Raises the error of ``fail_all`` once the engine is dead, and ``InvalidRequest`` if it holds what cannot be sent.
        """
        if self._failure is not None:
            raise self._failure.exception()
        try:  # at once, as a frame has requests of others too
            encoded = msgspec.Raw(self._encoder.encode(request))
        except (UnicodeEncodeError, OverflowError) as error:
            raise InvalidRequest("A request must hold valid Unicode text, and integers of 64 bits.") from error
        if len(self._submitted) >= REQUESTS_PER_FRAME and request.sample_index == 0:
            self._flush()
        self._sinks[request.id] = sink
        self._submitted.append(encoded)
        self._flush_soon()

    def abort(self, request_id: int) -> None:
        """Stop a request and forget its sink; one that has ended is ignored."""
        if self._sinks.pop(request_id, None) is not None:
            self._aborted.append(request_id)
            self._flush_soon()

    def fail_all(self, error: OctavoError) -> None:
        """The engine has died: end every open request with ``error`` and refuse new ones with it."""
        self._failure = frame = ErrorFrame.of(error)
        self._deliver(EngineFrame(outputs=[EngineOutput(id, finish=FinishReason.ERROR, error=frame) for id in self._sinks]))

    def close(self) -> None:
        """Disconnect; the engine aborts what is open, and no sink hears anything any more."""
        self._failure = self._failure or ErrorFrame.of(EngineDead("The connection to the engine is closed."))
        self._sinks.clear()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._line is not None:
            line, self._line = self._line, None
            self._loop.remove_reader(line.fileno())
            self._loop.remove_writer(line.fileno())
            line.close()

    def _flush_soon(self) -> None:
        if len(self._submitted) + len(self._aborted) == 1:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        submitted, self._submitted = self._submitted, []
        aborted, self._aborted = self._aborted, []
        if submitted:
            self._send(self._encoder.encode(Submit(cast("list[EngineRequest]", submitted))))
        if aborted:
            self._send(self._encoder.encode(Abort(aborted)))

    def _send(self, frame: bytes) -> None:
        line = self._line
        if line is not None:
            with contextlib.suppress(OSError):  # what it said last may still be there to be read, and then its end
                line.send(frame)
                if line.stuck:
                    self._loop.add_writer(line.fileno(), self._send_rest)

    def _send_rest(self) -> None:
        line = self._line
        assert line is not None
        with contextlib.suppress(OSError):
            line.flush()
            if line.stuck:
                return
        self._loop.remove_writer(line.fileno())

    def _read(self) -> None:
        line = self._line
        assert line is not None
        if not self._behind:
            if not line.read():
                self._loop.remove_reader(line.fileno())
            self._hand_over()

    def _hand_over(self) -> None:
        self._behind = False
        for _ in range(self._at_once):
            frame = None if self._line is None else self._line.take()
            if frame is None:
                self._at_once = 1
                return
            self._deliver(self._decoder.decode(frame))
        if self._line is not None and self._line.unread:
            self._at_once, self._behind = min(2 * self._at_once, FRAMES_PER_TURN), True
            self._loop.call_soon(self._hand_over)
        else:
            self._at_once = 1

    def _deliver(self, frame: EngineFrame) -> None:
        sinks = self._sinks
        for request_id, token_id in frame.tokens():
            sink = sinks.get(request_id)
            if sink is not None:
                try:
                    sink.hear_token(token_id)
                except Exception:
                    log.exception(_SINK_FAILED)
        for output in frame.outputs:
            sink = sinks.get(output.id) if output.finish is None else sinks.pop(output.id, None)
            if sink is not None:
                try:
                    sink.hear(output)
                except Exception:
                    log.exception(_SINK_FAILED)
