"""``GenerateService``: begins generations for requests of any dialect, and counts those that are refused. Knows no message."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from octavo.errors import OctavoError
from octavo.serving.models import Models, Route
from octavo.serving.served import count_failure
from octavo.text.backlog import Backlog
from octavo.text.generator import Generation
from octavo.text.request import GenerateRequest


class GenerateService:
    """The way from a request to its engine."""

    def __init__(self, models: Models, max_unread: int) -> None:
        """Serve ``models``; a stream may leave ``max_unread`` bytes of answers unread."""
        self._models, self._max_unread = models, max_unread

    def backlog(self) -> Backlog:
        """For the answers of one stream."""
        return Backlog(self._max_unread)

    def begin(self, route: Route, read: Callable[[], GenerateRequest], backlog: Backlog) -> Generation:
        """Hand what ``read`` gives to the engine of ``route``. Raises ``OctavoError``; whoever has the generation must end it."""
        with self.counting(route) as received_at:
            return self._models.engine(route).generate(read(), received_at, backlog)

    @contextmanager
    def counting(self, route: Route) -> Iterator[float]:
        """A request is read and begun inside, since the moment that this gives; one that is refused counts as failed."""
        received_at = time.monotonic()
        try:
            yield received_at
        except OctavoError as error:
            count_failure(self._models.ledger.of(route.name, route.version), error, time.monotonic() - received_at)
            raise
