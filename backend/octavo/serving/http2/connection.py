"""``Connection``: one client's connection: its calls, what is sent to it, and its end. What it sends is read by ``FrameReader``."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

from octavo.serving.http2 import frames
from octavo.serving.http2.call import STREAM_WINDOW, Call, Handler
from octavo.serving.http2.faults import Code, ConnectionFault
from octavo.serving.http2.flow import Intake
from octavo.serving.http2.headers import Head
from octavo.serving.http2.keepalive import Keepalive
from octavo.serving.http2.limits import Limits
from octavo.serving.http2.manners import Manners
from octavo.serving.http2.reader import FrameReader
from octavo.serving.http2.recent import Recent
from octavo.serving.http2.share import Share
from octavo.serving.http2.turn import Turn

ALPN = "h2"
CONNECTION_WINDOW = 2**23
# How long a client that was told to go may take to read why.
FAREWELL = 2.0
# How long the calls may take to arrive that were sent before the client knew that there is to be none.
LAST_CALLS = 1.0
RETIRING = b"octavo:g"
LARGEST_FRAME = 65_536
# So much leaves in one write at most: then the socket is asked whether it can take more.
ONE_WRITE = 2**18
# Windows of open streams that are changed for the price of one frame without need.
CHEAP_STREAMS = 64


@dataclass
class Host:
    """What all connections of a server share. ``route`` says who answers a call, or raises ``CallRefused``.

    ``left`` is set when one of the ``connections`` has ended. ``closing``: whoever comes now is let go at once.
    """

    limits: Limits
    route: Callable[[Call], Handler]
    turn: Turn
    threads: ThreadPoolExecutor
    connections: "set[Connection]"
    left: asyncio.Event
    closing: bool = False


class Connection(asyncio.Protocol):
    """See ``Way`` and ``Carrier`` for what its calls may use.

    ``last``: the highest stream that the client has opened. ``recent``: how streams ended of which frames may still come.
    ``waiting``: calls that the connection's window or socket holds up, in order.
    """

    def __init__(self, host: Host) -> None:
        """Nobody is connected."""
        self.limits, self.loop = host.limits, asyncio.get_running_loop()
        self.calls: dict[int, Call] = {}
        self.last, self.recent = 0, Recent()
        self.window, self.initial_window = frames.DEFAULT_WINDOW, frames.DEFAULT_WINDOW
        self.max_frame = frames.SMALLEST_MAX_FRAME
        self.sent, self.heard_at = 0, self.loop.time()
        self.congested = self.leaving = False
        self.manners = Manners(self.loop.time)
        self._host = host
        self.turn, self.share = host.turn, Share(host.turn, self._read_on)
        self._intake = Intake(CONNECTION_WINDOW)
        self._held = 0
        self._waiting: dict[int, None] = {}
        self._out: list[bytes] = []
        self._queued = 0
        self._reader = FrameReader(self)
        self._last_call: int | None = None
        self._farewell: asyncio.TimerHandle | None = None
        self._grace: asyncio.TimerHandle | None = None

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what we ask for, without waiting for the client."""
        self._transport = cast(asyncio.Transport, transport)
        self._host.connections.add(self)
        self.keepalive = Keepalive(self, self.limits, self.loop)
        self._reader.start()
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != ALPN:
            self.abort()
            return
        values = [
            (frames.MAX_CONCURRENT_STREAMS, self.limits.max_streams),
            (frames.INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (frames.MAX_HEADER_LIST_SIZE, self.limits.max_metadata),
        ]
        self.send(frames.settings(values) + frames.window_update(0, CONNECTION_WINDOW - frames.DEFAULT_WINDOW))
        if self._host.closing:
            self.retire()

    def data_received(self, data: bytes) -> None:
        """Bytes of the client's."""
        self.heard_at = self.loop.time()
        if self._farewell is None:
            self._reader.feed(data)

    def pause_writing(self) -> None:
        """The socket is full."""
        self.congested = True
        if not self.over:
            self._reader.pause()

    def resume_writing(self) -> None:
        """It is not any more."""
        self.congested, self.heard_at = False, self.loop.time()
        self._leave_if_done()
        self._go_on()
        for call in list(self.calls.values()):
            if self.congested:
                return
            call.go_on()
        if not self.congested:
            self._reader.resume()

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone, and so are its calls."""
        self._host.connections.discard(self)
        self._host.left.set()
        self._reader.stop()
        self.keepalive.stop()
        if self._farewell is not None:
            self._farewell.cancel()
        if self._grace is not None:
            self._grace.cancel()
        self._out.clear()
        self._close_calls()

    # What calls use.

    def send(self, data: bytes) -> None:
        """Let frames leave at the end of this turn of the loop, or now if there are many."""
        if not self._out:
            self.turn.flush(self.flush)
        self._out.append(data)
        self._queued += len(data)
        if self._queued >= ONE_WRITE:
            self.share.use_up()
            self.flush()

    def flush(self) -> None:
        """Let them leave now."""
        if self._out:
            out, self._out, self._queued = self._out, [], 0
            if not self._transport.is_closing():
                self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def wait(self, number: int) -> None:
        """Go on with that stream when there is room."""
        self._waiting[number] = None

    def unpack(self, work: Callable[[], bytes]) -> "asyncio.Future[bytes]":
        """Do ``work`` in a thread."""
        return self.loop.run_in_executor(self._host.threads, work)

    def hold(self, more: int) -> bool:
        """``more`` bytes wait here for a call; whether that many may."""
        self._held += more
        return more <= 0 or self._held <= self.limits.max_held

    def widen(self, stream: int, increment: int) -> None:
        """The client may send that many bytes more on ``stream``."""
        self.sent += 1
        self.send(frames.window_update(stream, increment))

    def forget(self, call: Call, code: Code | None) -> None:
        """A call is over; its stream is reset with ``code`` unless that is None."""
        if self.calls.pop(call.number, None) is not None:
            self._waiting.pop(call.number, None)
            self.share.forget(call.number)
            self.recent.add(call.number, code is not None)
            if code is not None:
                self.send(frames.rst_stream(call.number, code))
            call.close()
            self._leave_if_done()

    # What the reader uses.

    @property
    def busy(self) -> bool:
        """Whether a call is open."""
        return bool(self.calls)

    @property
    def over(self) -> bool:
        """Whether what the client sends is not read any more."""
        return self._farewell is not None or self._transport.is_closing()

    @property
    def full(self) -> bool:
        """Whether it has as many calls as it may."""
        return len(self.calls) >= self.limits.max_streams

    @property
    def closed_to_calls(self) -> bool:
        """Whether the client knows that no new call is looked at."""
        return self._last_call is not None

    def take(self, size: int) -> None:
        """A frame of ``size`` bytes of data has come. Raises ``ConnectionFault``."""
        if not self._intake.take(size):
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "more data than the connection's window has room for")
        increment = self._intake.give_back(size)
        if increment:
            self.send(frames.window_update(0, increment))

    def widened(self, by: int) -> None:
        """The client takes ``by`` bytes more on the connection. Raises ``ConnectionFault``."""
        self.window += by
        if self.window > frames.MAX_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a window must have at most 2147483647 bytes")
        self._go_on()

    def change_windows(self, size: int) -> None:
        """Every stream's window begins with ``size`` bytes, those that are open included. Raises ``ConnectionFault``."""
        by, self.initial_window = size - self.initial_window, size
        if not by:
            return
        self.manners.mind(len(self.calls) // CHEAP_STREAMS)
        for call in list(self.calls.values()):
            if not call.widened(by):
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a window must have at most 2147483647 bytes")

    def change_max_frame(self, size: int) -> None:
        """A frame to the client may have ``size`` bytes; ours have fewer, so that none holds up the others for long."""
        self.max_frame = min(size, LARGEST_FRAME)

    def begin(self, call: Call, head: Head, end: bool) -> Code | None:
        """A call has come; ``end``: nothing but its header will. The code of what is wrong with that."""
        self.calls[call.number] = call
        return call.begin(head, end, self._host.route)

    def answered(self, ping: bytes) -> None:
        """The client has answered a ping."""
        if ping == RETIRING:
            self.retired()

    def pause_reading(self) -> None:
        """There is enough to do for now."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # How it ends.

    def ping(self) -> None:
        """Ask the client whether it is there."""
        self.send(frames.frame(frames.PING, 0, 0, b"octavo:k"))

    def retire(self, grace: float | None = None) -> None:
        """Let no new call come, and close once the open ones are over, at the latest after ``grace`` seconds (None: for ever).

        Calls that are on their way are still taken: the client is told of none being lost until it has answered a ping.
        """
        if self.leaving or self.over:
            return
        self.leaving = True
        self.send(frames.goaway(frames.MAX_WINDOW, Code.NO_ERROR) + frames.frame(frames.PING, 0, 0, RETIRING))
        self.loop.call_later(LAST_CALLS, self.retired)
        if grace is not None:
            self._grace = self.loop.call_later(grace, self.end, Code.NO_ERROR, "max_age")

    def retired(self) -> None:
        """The client knows that it is to open no more calls."""
        if self.leaving and self._last_call is None and not self.over:
            self._last_call = self.last
            self.send(frames.goaway(self.last, Code.NO_ERROR))
            self._leave_if_done()

    def end(self, code: Code, text: str) -> None:
        """Tell the client that it is over, and close. What it still sends is thrown away, so that it can read why."""
        if not self.over:
            self.send(frames.goaway(self.last if self._last_call is None else self._last_call, code, text))
            self._part()

    def abort(self) -> None:
        """Hang up."""
        self._transport.abort()

    def _leave_if_done(self) -> None:
        """Close a retired connection once its calls are over and its client has taken their answers, however slowly."""
        if self._last_call is None or self.calls or self.over:
            return
        self.flush()
        if self._transport.get_write_buffer_size():
            self._transport.set_write_buffer_limits(1, 0)  # `resume_writing` comes when there is nothing left
        else:
            self._part()

    def _part(self) -> None:
        """Close. Data that nobody has read would take with it what was sent last, so the client may close first."""
        self.flush()
        self._farewell = self.loop.call_later(FAREWELL, self.abort)
        self.resume_reading()
        self._close_calls()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _read_on(self, number: int) -> None:
        self.calls[number].read_on()

    def _close_calls(self) -> None:
        calls, self.calls = self.calls, {}
        self._waiting.clear()
        for call in calls.values():
            self.share.forget(call.number)
            call.close()

    def _go_on(self) -> None:
        """There may be room for those who wait."""
        while self._waiting and self.window > 0 and not self.congested:
            number = next(iter(self._waiting))
            del self._waiting[number]
            self.calls[number].go_on()
