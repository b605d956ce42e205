"""``GrpcServer``: one front end's gRPC server on the shared port, with its limits."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection

from octavo.serving.auth import Headers
from octavo.serving.control import FrontEndSetup
from octavo.serving.grpc import health
from octavo.serving.grpc.guard import Guard
from octavo.serving.grpc.handlers import SERVICE, Context, Unary, service_handler
from octavo.serving.grpc.noise import quiet_grpc
from octavo.serving.grpc.stream import RPC, InferStream
from octavo.serving.link import Link
from octavo.serving.models import Models
from octavo.serving.ports import authority
from octavo.serving.services.core import CoreService
from octavo.serving.services.infer import InferService
from octavo.serving.services.repository import RepositoryService
from octavo.serving.services.settings import SettingsService
from octavo.serving.tls import TlsFiles
from octavo.serving.traffic import Traffic
from octavo.wire.reflection import reflection_pool


def grpc_server(setup: FrontEndSetup, models: Models, link: Link, traffic: Traffic) -> grpc.aio.Server:
    """A server that is bound to its port and not started."""
    quiet_grpc()
    gate = setup.security.grpc_gate()
    server = grpc.aio.server(
        interceptors=[Guard(gate)] if gate.closed else [],
        options=[("grpc.so_reuseport", 1), *setup.grpc_arguments.items()],
    )
    core, repository = CoreService(models), RepositoryService(models, link)
    settings = SettingsService(models, link, gate)
    infer = InferService(models, setup.max_response_buffer_size)

    async def stream_infer(context: Context) -> None:
        await InferStream(infer, models, context, setup.max_stream_requests).run()

    unary: dict[str, Unary] = {
        method.name: _without_headers(getattr(service, method.name))
        for method in SERVICE.methods
        for service in (core, repository, settings)
        if hasattr(service, method.name)
    }
    unary["ModelInfer"] = infer.ModelInfer
    server.add_generic_rpc_handlers((service_handler(unary, {RPC: stream_infer}, traffic), health.HealthService(models).handler()))
    reflection.enable_server_reflection((SERVICE.full_name, health.SERVICE, reflection.SERVICE_NAME), server, reflection_pool())
    address, tls = authority(setup.grpc_address, setup.grpc_port), setup.security.grpc_tls
    if tls is None:
        server.add_insecure_port(address)
    else:
        server.add_secure_port(address, _credentials(tls))
    return server


def _without_headers(handle: Callable[[Any], Awaitable[Message]]) -> Unary:
    async def answer(request: Message, _: Headers) -> Message:
        return await handle(request)

    return answer


def _credentials(files: TlsFiles) -> grpc.ServerCredentials:
    root = Path(files.root).read_bytes() if files.root is not None else None
    pair = Path(files.key).read_bytes(), Path(files.certificate).read_bytes()
    return grpc.ssl_server_credentials([pair], root_certificates=root, require_client_auth=root is not None)
