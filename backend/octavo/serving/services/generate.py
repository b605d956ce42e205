"""``GenerateService``: begins generations for requests of any dialect, and counts those that are refused. Knows no message."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from octavo.errors import OctavoError
from octavo.serving.auth import Headers
from octavo.serving.models import Models, Route
from octavo.serving.served import Arrival, count_failure
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

    def begin(self, route: Route, read: Callable[[], GenerateRequest], backlog: Backlog, headers: Headers) -> Generation:
        """Hand what ``read`` gives to the engine of ``route``; ``headers``: those that it came with.

        Raises ``OctavoError``; whoever has the generation must end it.
        """
        with self.arriving(route, headers) as arrival:
            return self._models.engine(route).generate(read(), arrival, backlog)

    @contextmanager
    def arriving(self, route: Route, headers: Headers) -> Iterator[Arrival]:
        """A request that has just come is read and begun inside; one that is refused counts as failed."""
        arrival = Arrival(time.monotonic(), self._models.trace(route, headers))
        try:
            yield arrival
        except OctavoError as error:
            count_failure(self._models.ledger.of(route.name, route.version), error, time.monotonic() - arrival.at)
            if arrival.trace is not None:
                arrival.trace.refuse(arrival.at, error)
            raise
