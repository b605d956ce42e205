"""What every RPC's handler does to bytes, without a server."""

import asyncio
import sys
from types import SimpleNamespace

import pytest

from octavo.errors import Internal, NotFound
from octavo.serving.grpc.handlers import SERVICE, parse, service_routes
from octavo.serving.http2.status import Status
from octavo.serving.traffic import Traffic
from octavo.wire import pb


def test_bytes_that_are_no_message_are_not_kept_by_their_error() -> None:
    """An exception collects a trace, with all its frames' variables, each time that it is raised: so each has its own."""
    errors = []
    for _ in range(2):
        with pytest.raises(Internal, match=r"^Unable to parse request$") as caught:
            parse(pb.ModelInferRequest, b"\xff" * 100)
        errors.append(caught.value)
    assert errors[0] is not errors[1]


def test_what_a_refused_call_sent_is_let_go_with_it() -> None:
    """A refusal must not hold 64 MiB until the garbage collector happens to look."""

    async def refuse(request: pb.ModelInferRequest, _: object) -> pb.ModelInferResponse:
        seen.append(sys.getrefcount(data))
        raise NotFound(f"There is no model {request.model_name}.")

    async def call() -> None:
        handler.receive(data)
        handler.receive_end()
        while not ended:
            await asyncio.sleep(0)

    seen: list[int] = []
    ended: list[tuple[Status, str]] = []
    routes = service_routes({"ModelInfer": refuse}, {}, Traffic())
    one = SimpleNamespace(header=lambda _: None, keep=lambda _: None, end=lambda *how: ended.append(how))
    handler = routes[f"/{SERVICE.full_name}/ModelInfer"](one)
    data = pb.ModelInferRequest(model_name="x" * 100).SerializeToString()
    before = sys.getrefcount(data)
    asyncio.run(call())
    assert ended == [(Status.NOT_FOUND, f"There is no model {'x' * 100}.")]
    assert sys.getrefcount(data) == before < seen[0]
