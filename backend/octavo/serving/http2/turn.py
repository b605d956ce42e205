"""``Turn``: what is put off to the end of a turn of the event loop, so that it is done once for all that the turn brought."""

import asyncio
import logging
from collections.abc import Callable

from octavo.serving.http2 import packing

log = logging.getLogger(__name__)


class Turn:
    """First the work of those who write, then each connection's bytes leave, all in one write.

    ``number``: of the turn. ``unpacking``: bytes that may still be unpacked in it, of all connections together.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing is put off."""
        self.number, self.unpacking = 0, packing.AT_ONCE
        self._loop = loop
        self._work: list[Callable[[], None]] = []
        self._flushes: list[Callable[[], None]] = []
        self._due = False

    def work(self, work: Callable[[], None]) -> None:
        """Call ``work`` once the turn is over."""
        self._work.append(work)
        if not self._due:
            self._end_soon()

    def flush(self, flush: Callable[[], None]) -> None:
        """Call ``flush`` after all work that is put off by then."""
        self._flushes.append(flush)
        if not self._due:
            self._end_soon()

    def unpacked(self, size: int) -> None:
        """So many bytes were unpacked in the loop."""
        self.unpacking -= size
        if not self._due:
            self._end_soon()

    def _end_soon(self) -> None:
        self._due = True
        self._loop.call_soon(self._end)

    def _end(self) -> None:
        self.number += 1
        self.unpacking = packing.AT_ONCE
        work, self._work = self._work, []
        _call(work)
        flushes, self._flushes = self._flushes, []
        _call(flushes)
        self._due = False
        if self._work or self._flushes:
            self._end_soon()


def _call(callbacks: list[Callable[[], None]]) -> None:
    for callback in callbacks:
        try:
            callback()
        except Exception:
            log.exception("What a turn of the loop had put off has failed")
