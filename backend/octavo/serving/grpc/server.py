"""``grpc_server``: one front end's gRPC server on the shared port, with all that it answers."""

from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.message import Message

from octavo.errors import OctavoError
from octavo.serving.auth import Gate, Headers
from octavo.serving.control import FrontEndSetup
from octavo.serving.groups import group_of_method
from octavo.serving.grpc import health, reflection
from octavo.serving.grpc.errors import refusal
from octavo.serving.grpc.handlers import SERVICE, Answer, Route, service_routes, unary
from octavo.serving.grpc.stream import RPC, InferStreams
from octavo.serving.http2.call import Call, Handler
from octavo.serving.http2.connection import ALPN
from octavo.serving.http2.server import Server
from octavo.serving.http2.status import CallRefused, Status
from octavo.serving.http2.unary import Conversation
from octavo.serving.link import Link
from octavo.serving.models import Models
from octavo.serving.ports import listener
from octavo.serving.services.core import CoreService
from octavo.serving.services.infer import InferService
from octavo.serving.services.repository import RepositoryService
from octavo.serving.services.settings import SettingsService
from octavo.serving.tls import server_context
from octavo.serving.traffic import Traffic
from octavo.wire.reflection import reflection_pool


async def grpc_server(setup: FrontEndSetup, models: Models, link: Link, traffic: Traffic) -> Server:
    """A server that listens on its port."""
    gate = setup.security.grpc_gate()
    server = Server(setup.grpc_limits, guarded(gate, _routes(setup, models, link, traffic, gate)))
    tls = setup.security.grpc_tls
    await server.listen(listener(setup.grpc_address, setup.grpc_port), None if tls is None else server_context(tls, ALPN))
    return server


def guarded(gate: Gate, routes: dict[str, Route]) -> Route:
    """Who answers a call, if ``gate`` lets it through; it is asked about methods that do not exist, too."""

    def route(call: Call) -> Handler:
        try:
            gate.check(group_of_method(call.method), call.header)
        except OctavoError as error:
            raise refusal(error, call.method.rpartition("/")[2]) from None
        handler = routes.get(call.method)
        if handler is None:
            raise CallRefused(Status.UNIMPLEMENTED, "Method not found!")
        return handler(call)

    return route


def _routes(setup: FrontEndSetup, models: Models, link: Link, traffic: Traffic, gate: Gate) -> dict[str, Route]:
    services = (CoreService(models, link), RepositoryService(models, link), SettingsService(models, link, gate))
    answers: dict[str, Answer] = {
        method.name: _without_headers(getattr(service, method.name))
        for method in SERVICE.methods
        for service in services
        if hasattr(service, method.name)
    }
    infer = InferService(models, setup.max_response_buffer_size)
    answers["ModelInfer"] = infer.ModelInfer
    streams = InferStreams(infer, models, setup.max_stream_requests, traffic)
    watched = health.HealthService(models, link)
    describe = reflection.reflection((SERVICE.full_name, health.SERVICE), reflection_pool())
    return service_routes(answers, {RPC: streams.open}, traffic) | {
        f"/{health.SERVICE}/Check": unary(watched.check, traffic),
        f"/{health.SERVICE}/Watch": watched.watch,
        reflection.METHOD: lambda call: Conversation(call, describe),
    }


def _without_headers(handle: Callable[[Any], Awaitable[Message]]) -> Answer:
    async def answer(request: Message, _: Headers) -> Message:
        return await handle(request)

    return answer
