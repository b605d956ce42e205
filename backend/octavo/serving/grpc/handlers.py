"""Method handlers for the whole service, built from its descriptor: bytes in, bytes out, errors through the one table."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from octavo.errors import Internal, OctavoError, Unsupported, internal
from octavo.serving.auth import Headers
from octavo.serving.grpc.errors import UNPARSABLE, code_of, status_text
from octavo.serving.traffic import Traffic
from octavo.wire import pb

log = logging.getLogger(__name__)
SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
Context: TypeAlias = grpc.aio.ServicerContext
Unary = Callable[[Any, Headers], Awaitable[Message]]
Stream = Callable[[Context], Awaitable[None]]
Request = TypeVar("Request", bound=Message)


def service_handler(unary: Mapping[str, Unary], streams: Mapping[str, Stream], traffic: Traffic) -> grpc.GenericRpcHandler:
    """All RPCs of the service; those in neither mapping answer that they are not implemented. ``traffic`` counts them."""
    handlers: dict[str, grpc.RpcMethodHandler] = {}
    for method in SERVICE.methods:
        if method.name in streams:
            handlers[method.name] = grpc.stream_stream_rpc_method_handler(_streaming(streams[method.name], traffic))
        else:
            request_type = getattr(pb, method.input_type.name)
            handle = unary.get(method.name) or _missing(method.name)
            handlers[method.name] = grpc.unary_unary_rpc_method_handler(_answering(method.name, request_type, handle, traffic))
    return grpc.method_handlers_generic_handler(SERVICE.full_name, handlers)


def parse(message_type: type[Request], data: bytes) -> Request:
    """The message in ``data``; raises Triton's error for bytes that are none."""
    try:
        return message_type.FromString(data)
    except DecodeError:
        raise Internal(UNPARSABLE) from None


def headers_of(context: Context) -> Headers:
    """The metadata of a call, by name in small letters."""
    return lambda name: next((str(value) for key, value in context.invocation_metadata() or () if key == name), None)


def visible(error: Exception) -> OctavoError:
    """What a client may see of ``error``; a bug of ours is logged under an id."""
    return error if isinstance(error, OctavoError) else internal(error, log)


def _answering(
    rpc: str, request_type: type[Message], handle: Unary, traffic: Traffic
) -> Callable[[bytes, Context], Awaitable[bytes]]:
    async def answer(data: bytes, context: Context) -> bytes:
        _count(traffic, context)
        try:
            return (await handle(parse(request_type, data), headers_of(context))).SerializeToString()
        except Exception as error:
            code, text = _refusal(error, rpc)
        # grpc holds on to the frame that aborts until the next collection; what the client sent must not stay with it.
        del data
        await context.abort(code, text)
        raise AssertionError("abort returned")

    return answer


def _refusal(error: Exception, rpc: str) -> tuple[grpc.StatusCode, str]:
    shown = visible(error)
    return code_of(shown, rpc), status_text(shown)


def _streaming(stream: Stream, traffic: Traffic) -> Callable[[Any, Context], Awaitable[None]]:
    async def run(_: Any, context: Context) -> None:
        _count(traffic, context)
        await stream(context)

    return run


def _count(traffic: Traffic, context: Context) -> None:
    """The call is open until gRPC is done with it: after its handler its last message and its status have to leave."""
    number = traffic.begin()
    context.add_done_callback(lambda _: traffic.end(number))


def _missing(rpc: str) -> Unary:
    async def refuse(_: Message, __: Headers) -> Message:
        raise Unsupported(f"This server does not implement {rpc}.")

    return refuse
