"""``Guard``: asks the gate about every call of a gRPC server, also of methods that do not exist, before anything of it is read."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from octavo.errors import OctavoError
from octavo.serving.auth import Gate
from octavo.serving.groups import group_of_method
from octavo.serving.grpc.errors import code_of, status_text


class Guard(grpc.aio.ServerInterceptor):
    """Ends what the gate does not let through."""

    def __init__(self, gate: Gate) -> None:
        """Ask ``gate``."""
        self._gate = gate

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[grpc.RpcMethodHandler]], details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler:
        """The method's own handler, or one that says why not."""
        metadata = dict(reversed(details.invocation_metadata or ()))
        try:
            self._gate.check(group_of_method(details.method), metadata.get)
        except OctavoError as error:
            return _refusing(error, details.method)
        return await continuation(details)


def _refusing(error: OctavoError, method: str) -> grpc.RpcMethodHandler:
    async def refuse(_: Any, context: grpc.aio.ServicerContext) -> None:
        await context.abort(code_of(error, method.rpartition("/")[2]), status_text(error))

    # A stream on both sides is ended without waiting for a message, whatever the client takes the method for.
    return grpc.stream_stream_rpc_method_handler(refuse)
