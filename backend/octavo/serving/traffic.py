"""``Traffic``: which calls are open in a front end, so that a drain can wait for them."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from octavo.serving.news import News


class Traffic:
    """Knows the open calls, each by a number."""

    def __init__(self) -> None:
        """No call is open."""
        self._open: set[int] = set()
        self._numbers = itertools.count()
        self._news = News()

    @property
    def open(self) -> int:
        """How many calls are open."""
        return len(self._open)

    def begin(self) -> int:
        """A call is open until ``end`` hears the number that this gives."""
        number = next(self._numbers)
        self._open.add(number)
        return number

    def end(self, number: int) -> None:
        """That call has ended."""
        self._open.discard(number)
        self._news.tell()

    def entered(self) -> Callable[[], None]:
        """A call is open until what this gives is called."""
        return partial(self.end, self.begin())

    @contextmanager
    def call(self) -> Iterator[None]:
        """A call is open inside."""
        number = self.begin()
        try:
            yield
        finally:
            self.end(number)

    async def quiet(self) -> None:
        """Wait until the calls that are open now have ended, whatever comes meanwhile."""
        awaited = set(self._open)
        while not self._open.isdisjoint(awaited):
            await self._news.wait()
