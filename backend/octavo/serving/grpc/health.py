"""``grpc.health.v1``: Check and Watch. SERVING means ready; the name of a model asks for that model, any other for the server.

The service ``liveness`` is SERVING as long as this process and the supervisor answer: a kubelet must not end a server whose
engine is being started again.
"""

import asyncio

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from octavo.errors import Draining
from octavo.serving.grpc.errors import UNPARSABLE, refusal
from octavo.serving.http2.call import Call
from octavo.serving.http2.status import CallRefused, Status
from octavo.serving.link import Link
from octavo.serving.models import Models
from octavo.serving.services.core import SERVER_EXITING

SERVICE = "grpc.health.v1.Health"
LIVENESS = "liveness"


class HealthService:
    """Health as Triton reports it, and Watch, which Triton lacks."""

    def __init__(self, models: Models, link: Link) -> None:
        """Report on ``models``; ``link`` tells whether the supervisor lives."""
        self.models, self._link = models, link

    async def check(self, data: bytes, _: Call) -> bytes:
        """The state now. Raises ``CallRefused``."""
        service = service_of(data)
        if self.models.exiting:
            raise refusal(Draining(SERVER_EXITING), "Check")
        return self.status(service)

    def watch(self, call: Call) -> "Watch":
        """The state whenever it changes."""
        return Watch(call, self)

    def status(self, service: str) -> bytes:
        """The state of ``service``, as a message."""
        known = self.models.canonical(service) in self.models.names()
        alive = not self._link.silent if service == LIVENESS else self.models.ready
        holds = self.models.is_ready(service, "") if known else alive
        statuses = health_pb2.HealthCheckResponse
        status = statuses.SERVING if holds and not self.models.exiting else statuses.NOT_SERVING
        return bytes(statuses(status=status).SerializeToString())


class Watch:
    """A client that is told of every change. Does not count as open: it would hold up the end of the server."""

    def __init__(self, call: Call, health: HealthService) -> None:
        """Nothing was told."""
        self._call, self._health = call, health
        self._service: str | None = None
        self._told = b""
        self._task: asyncio.Task[None] | None = None

    def receive(self, message: bytes) -> None:
        """What to watch."""
        if self._task is not None:
            raise CallRefused(Status.INTERNAL, "This method takes one message, and got more.")
        self._service = service_of(message)
        self._call.keep(len(message))
        self._task = asyncio.ensure_future(self._follow())

    def receive_end(self) -> None:
        """The client only listens."""
        if self._task is None:
            raise CallRefused(Status.INTERNAL, "This method takes one message, and got none.")

    def writable(self) -> None:
        """It may have missed a change."""
        self._tell()

    def closed(self) -> None:
        """Nobody listens."""
        if self._task is not None:
            self._task.cancel()

    async def _follow(self) -> None:
        models = self._health.models
        while True:
            self._tell()
            if models.exiting:
                break
            await models.news.wait()
        self._task = None
        self._call.end(Status.UNAVAILABLE, SERVER_EXITING)

    def _tell(self) -> None:
        if self._service is None or not self._call.ready:
            return
        status = self._health.status(self._service)
        if status != self._told:
            self._told = status
            self._call.write(status)


def service_of(data: bytes) -> str:
    """The service that a message asks about. Raises ``CallRefused``."""
    try:
        return str(health_pb2.HealthCheckRequest.FromString(data).service)
    except DecodeError:
        raise CallRefused(Status.INTERNAL, UNPARSABLE) from None
