"""What every RPC's handler does to bytes, without a server."""

import asyncio
import sys
from collections.abc import Callable
from types import SimpleNamespace

import grpc
import pytest

from octavo.errors import Internal, NotFound
from octavo.serving.grpc.handlers import SERVICE, parse, service_handler
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


class HoldingContext:
    """Keeps the exception that ends a call, and with its trace every frame under it, as grpc's own context does."""

    def __init__(self) -> None:
        self.status: tuple[grpc.StatusCode, str] | None = None
        self.ended: Exception | None = None

    def add_done_callback(self, _: Callable[[object], None]) -> None:
        """It is never done."""

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.status = code, details
        self.ended = grpc.aio.AbortError()
        raise self.ended


def test_what_a_refused_call_sent_is_let_go_with_it() -> None:
    """A refusal must not hold 64 MiB until the garbage collector happens to look."""

    async def refuse(request: pb.ModelInferRequest, _: object) -> pb.ModelInferResponse:
        seen.append(sys.getrefcount(data))
        raise NotFound(f"There is no model {request.model_name}.")

    async def call() -> HoldingContext:
        context = HoldingContext()
        with pytest.raises(grpc.aio.AbortError):
            await handler.unary_unary(data, context)
        return context

    seen: list[int] = []
    generic = service_handler({"ModelInfer": refuse}, {}, Traffic())
    handler = generic.service(SimpleNamespace(method=f"/{SERVICE.full_name}/ModelInfer"))
    data = pb.ModelInferRequest(model_name="x" * 100).SerializeToString()
    before = sys.getrefcount(data)
    context = asyncio.run(call())
    assert context.status == (grpc.StatusCode.NOT_FOUND, f"There is no model {'x' * 100}.")
    assert sys.getrefcount(data) == before < seen[0]
