"""``Keepalive``: pings of a silent client, a client's own pings, and a connection's age. Knows no stream."""

import asyncio
import math
import random
from typing import Protocol

from octavo.serving.http2.faults import Code, ConnectionFault
from octavo.serving.http2.limits import Limits

# What gRPC allows of pings while there are no calls and they are not permitted: TCP's own keepalive.
RARELY = 7200.0
JITTER = 0.1


class Pinged(Protocol):
    """The connection: ``sent`` counts what was sent of calls, ``heard_at`` is when anything came last.

    ``congested``: the client is slow to read, and until it has nothing of it is heard.
    """

    sent: int
    heard_at: float
    congested: bool

    @property
    def busy(self) -> bool:
        """Whether a call is open."""

    def ping(self) -> None:
        """Ask the client whether it is there."""

    def abort(self) -> None:
        """It is not."""

    def retire(self, grace: float | None) -> None:
        """The connection is old."""


class Keepalive:
    """The timers of one connection."""

    def __init__(self, connection: Pinged, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to watch."""
        self._connection, self._limits, self._loop = connection, limits, loop
        self._last_ping, self._sent_at_ping, self._strikes = -math.inf, 0, 0
        self._asked_at: float | None = None
        self._unheeded, self._sent_when_asked = 0, 0
        self._timer = loop.call_later(limits.keepalive_time, self._look)
        self._age: asyncio.TimerHandle | None = None
        if limits.max_age is not None:
            age = limits.max_age * random.uniform(1 - JITTER, 1 + JITTER)
            self._age = loop.call_later(age, connection.retire, limits.max_age_grace)

    def stop(self) -> None:
        """The connection is over."""
        self._timer.cancel()
        if self._age is not None:
            self._age.cancel()

    def pinged(self) -> None:
        """The client has sent a ping. Raises ``ConnectionFault`` if it does so all the time."""
        now, limits = self._loop.time(), self._limits
        if self._connection.sent != self._sent_at_ping:
            self._sent_at_ping, self._strikes, self._last_ping = self._connection.sent, 0, -math.inf
        interval = limits.ping_interval if limits.keepalive_without_calls or self._connection.busy else RARELY
        if now < self._last_ping + interval:
            self._strikes += 1
            if 0 < limits.ping_strikes < self._strikes:
                raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "too_many_pings")
        self._last_ping = now

    def _look(self) -> None:
        """The client was silent for a while, or has had time to answer."""
        now, heard_at, limits = self._loop.time(), self._connection.heard_at, self._limits
        if self._connection.congested:
            self._asked_at, wait = None, limits.keepalive_time
        elif self._asked_at is not None and heard_at < self._asked_at:
            wait = self._asked_at + limits.keepalive_timeout - now
            if wait <= 0:
                self._connection.abort()
                return
        else:
            self._asked_at = None
            wait = heard_at + limits.keepalive_time - now
            if wait <= 0:
                wait = limits.keepalive_timeout
                if self._may_ask():
                    self._asked_at = now
                    self._connection.ping()
        self._timer = self._loop.call_later(min(wait, limits.keepalive_time), self._look)

    def _may_ask(self) -> bool:
        if not (self._limits.keepalive_without_calls or self._connection.busy):
            return False
        if self._connection.sent != self._sent_when_asked:
            self._sent_when_asked, self._unheeded = self._connection.sent, 0
        self._unheeded += 1
        return not 0 < self._limits.pings_without_data < self._unheeded
