"""``Backoff``: how long to wait before a dead process is started again, and when to stop trying. Knows no process."""

from collections import deque

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
MAX_DEATHS = 6
WINDOW = 300.0


class Backoff:
    """Delays double with every death within ``WINDOW`` seconds; after ``MAX_DEATHS`` of them there is none left.

    The delays of a full window sum to 0.5 + 1 + 2 + 4 + 8 = 15.5 s.
    """

    def __init__(self) -> None:
        """Nothing has died yet."""
        self._deaths: deque[float] = deque()

    def died(self, now: float) -> float | None:
        """Count a death at ``now`` (seconds, monotonic); the delay before the next start, or None to give up."""
        self._deaths.append(now)
        while self._deaths[0] <= now - WINDOW:
            self._deaths.popleft()
        if len(self._deaths) >= MAX_DEATHS:
            return None
        return float(min(LONGEST_DELAY, FIRST_DELAY * 2 ** (len(self._deaths) - 1)))
