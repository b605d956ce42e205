"""``Traffic``: how many calls are open in a front end, so that a drain can wait for them."""

from collections.abc import Iterator
from contextlib import contextmanager

from octavo.serving.news import News


class Traffic:
    """Counts open calls."""

    def __init__(self) -> None:
        """No call is open."""
        self.open = 0
        self._news = News()

    @contextmanager
    def call(self) -> Iterator[None]:
        """A call is open inside."""
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1
            self._news.tell()

    async def idle(self) -> None:
        """Wait until no call is open."""
        while self.open:
            await self._news.wait()
