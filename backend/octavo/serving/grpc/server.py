"""``GrpcServer``: one front end's gRPC server on the shared port, with its limits."""

import grpc
from grpc_reflection.v1alpha import reflection

from octavo.serving.control import FrontEndSetup
from octavo.serving.grpc import health
from octavo.serving.grpc.core import CoreService
from octavo.serving.grpc.handlers import SERVICE, Context, service_handler
from octavo.serving.grpc.infer import InferService
from octavo.serving.grpc.repository import RepositoryService
from octavo.serving.grpc.stream import RPC, InferStream
from octavo.serving.link import Link
from octavo.serving.models import Models
from octavo.serving.ports import authority
from octavo.serving.traffic import Traffic
from octavo.wire.reflection import reflection_pool

MAX_METADATA = 16 * 1024
# A client may ping every 10 s even on an idle connection; one that does not answer our ping for 20 s is gone.
KEEPALIVE = [
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
]


def grpc_server(setup: FrontEndSetup, models: Models, link: Link, traffic: Traffic) -> grpc.aio.Server:
    """A server that is bound to its port and not started."""
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", setup.max_message_size),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", setup.max_concurrent_streams),
            ("grpc.max_metadata_size", MAX_METADATA),
            ("grpc.absolute_max_metadata_size", MAX_METADATA),
            *KEEPALIVE,
        ]
    )
    core, repository = CoreService(models), RepositoryService(models, link)
    infer = InferService(models)

    async def stream_infer(context: Context) -> None:
        await InferStream(infer, models, context, setup.max_stream_requests).run()

    unary = {
        method.name: getattr(service, method.name)
        for method in SERVICE.methods
        for service in (core, repository, infer)
        if not method.client_streaming and hasattr(service, method.name)
    }
    server.add_generic_rpc_handlers((service_handler(unary, {RPC: stream_infer}, traffic), health.HealthService(models).handler()))
    reflection.enable_server_reflection((SERVICE.full_name, health.SERVICE, reflection.SERVICE_NAME), server, reflection_pool())
    server.add_insecure_port(authority(setup.grpc_address, setup.grpc_port))
    return server
