"""Method handlers for the whole service, built from its descriptor: bytes in, bytes out, errors through the one table."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from octavo.errors import Internal, OctavoError, Unsupported, internal
from octavo.serving.auth import Headers
from octavo.serving.grpc.errors import UNPARSABLE, refusal
from octavo.serving.http2.call import Call, Handler
from octavo.serving.http2.unary import Unary
from octavo.serving.traffic import Traffic
from octavo.wire import pb

log = logging.getLogger(__name__)
SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
Answer = Callable[[Any, Headers], Awaitable[Message]]
Route = Callable[[Call], Handler]
Request = TypeVar("Request", bound=Message)


def service_routes(answers: Mapping[str, Answer], streams: Mapping[str, Route], traffic: Traffic) -> dict[str, Route]:
    """Who answers which method of the service; those in neither mapping say that they are not implemented."""
    routes: dict[str, Route] = {}
    for method in SERVICE.methods:
        if method.name in streams:
            route = streams[method.name]
        else:
            request_type = getattr(pb, method.input_type.name)
            answer = answers.get(method.name) or _missing(method.name)
            route = unary(_answering(method.name, request_type, answer), traffic)
        routes[f"/{SERVICE.full_name}/{method.name}"] = route
    return routes


def unary(answer: Callable[[bytes, Call], Awaitable[bytes]], traffic: Traffic) -> Route:
    """A method that ``answer`` answers. A call of it is open until its status is out."""
    return lambda call: Unary(call, answer, traffic.entered())


def parse(message_type: type[Request], data: bytes) -> Request:
    """The message in ``data``; raises Triton's error for bytes that are none."""
    try:
        return message_type.FromString(data)
    except DecodeError:
        raise Internal(UNPARSABLE) from None


def visible(error: Exception) -> OctavoError:
    """What a client may see of ``error``; a bug of ours is logged under an id."""
    return error if isinstance(error, OctavoError) else internal(error, log)


def _answering(rpc: str, request_type: type[Message], answer: Answer) -> Callable[[bytes, Call], Awaitable[bytes]]:
    return partial(_answer, rpc, request_type, answer)


async def _answer(rpc: str, request_type: type[Message], answer: Answer, data: bytes, call: Call) -> bytes:
    try:
        return (await answer(parse(request_type, data), call.header)).SerializeToString()
    except Exception as error:
        raise refusal(visible(error), rpc) from None


def _missing(rpc: str) -> Answer:
    async def refuse(_: Message, __: Headers) -> Message:
        raise Unsupported(f"This server does not implement {rpc}.")

    return refuse
