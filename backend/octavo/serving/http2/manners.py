"""``Manners``: counts what a client does without need, so that cheap frames cannot buy dear work. Knows no frame.

Resets (a client's own, and those that it provokes), frames without content, settings, priorities, unknown frames, header blocks
of many kilobytes: a client that behaves sends a few of each. What is not met here is limited where it is met: pings by their
strikes, windows by what was sent.
"""

from collections.abc import Callable

from octavo.serving.http2.faults import Code, ConnectionFault

BURST, PER_SECOND = 1000, 100


class Manners:
    """A bucket that leaks ``PER_SECOND`` and holds ``BURST``."""

    __slots__ = ("_clock", "_level", "_since")

    def __init__(self, clock: Callable[[], float]) -> None:
        """Nothing was done yet. ``clock``: seconds."""
        self._clock, self._since, self._level = clock, clock(), 0.0

    def mind(self, cost: int = 1) -> None:
        """One more, or what is worth as many as ``cost``. Raises ``ConnectionFault`` once it is enough."""
        self._level += cost
        if self._level <= BURST:
            return
        now = self._clock()
        self._level = max(float(cost), self._level - PER_SECOND * (now - self._since))
        self._since = now
        if self._level > BURST:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "too_many_frames_without_need")
