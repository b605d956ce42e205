"""``grpc.health.v1``: Check and Watch. SERVING means ready; the name of a model asks for that model, any other for the server.

The service ``liveness`` is SERVING as long as this process answers: a kubelet must not end a server whose engine is being
started again.
"""

from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from octavo.errors import Draining, Internal
from octavo.serving.grpc.errors import UNPARSABLE, code_of
from octavo.serving.models import Models
from octavo.serving.services.core import SERVER_EXITING

SERVICE = "grpc.health.v1.Health"
LIVENESS = "liveness"


class HealthService:
    """Health as Triton reports it, and Watch, which Triton lacks."""

    def __init__(self, models: Models) -> None:
        """Report on ``models``."""
        self._models = models

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server needs to serve this."""
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def _check(self, data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        service = await _service(data, context)
        if self._models.exiting:
            await context.abort(code_of(Draining(), "Check"), SERVER_EXITING)
        return self._status(service)

    async def _watch(self, data: bytes, context: grpc.aio.ServicerContext) -> None:
        service = await _service(data, context)
        told = b""
        while True:
            status = self._status(service)
            if status != told:
                try:
                    await context.write(status)
                except grpc.aio.BaseError:
                    return  # the client is gone
                told = status
            elif not self._models.exiting:
                await self._models.news.wait()
            else:
                await context.abort(code_of(Draining(), "Watch"), SERVER_EXITING)

    def _status(self, service: str) -> bytes:
        known = self._models.canonical(service) in self._models.names()
        ready = self._models.is_ready(service, "") if known else service == LIVENESS or self._models.ready
        statuses = health_pb2.HealthCheckResponse
        status = statuses.SERVING if ready and not self._models.exiting else statuses.NOT_SERVING
        return bytes(statuses(status=status).SerializeToString())


async def _service(data: bytes, context: grpc.aio.ServicerContext) -> Any:
    try:
        return health_pb2.HealthCheckRequest.FromString(data).service
    except DecodeError:
        await context.abort(code_of(Internal(), "Check"), UNPARSABLE)
