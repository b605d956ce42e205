"""``InferService``: inference requests to generations, for the unary RPC and for every stream."""

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from octavo.errors import OctavoError, Overloaded
from octavo.protocol.rejection import prefixed
from octavo.protocol.triton import TritonCall, TritonStop
from octavo.protocol.triton_reply import StopReply, TritonReply
from octavo.serving.auth import Headers, owner_of
from octavo.serving.models import Models, Route
from octavo.serving.served import Arrival
from octavo.serving.services.generate import GenerateService
from octavo.text.backlog import Backlog
from octavo.text.request import GenerateChunk
from octavo.wire import pb


class Chunks(Protocol):
    """An answer as it comes: a ``Generation``, or what stands for one."""

    def __aiter__(self) -> AsyncIterator[GenerateChunk]:
        """All of it, in pieces."""

    async def __anext__(self) -> GenerateChunk:
        """The next piece."""

    def listen(self, heard: Callable[[], None]) -> None:
        """Call ``heard`` whenever there is more to take: once for each ``take`` that it needs."""

    def take(self) -> GenerateChunk | None:
        """What is new, None if nothing is. Raises the error that ends it."""

    def cancel(self) -> None:
        """Nobody reads on."""


class Reply(Protocol):
    """Words an answer; ``streamed`` gives None where a stream is to be told nothing."""

    def unary(self, chunk: GenerateChunk) -> pb.ModelInferResponse:
        """The reply to ``ModelInfer``."""

    def streamed(self, chunk: GenerateChunk) -> bytes | None:
        """A message of a stream, serialized."""


class Answer:
    """A request that was begun: its ``generation``, and the ``reply`` that words it."""

    def __init__(self, call: TritonCall | TritonStop, generation: Chunks, reply: Reply) -> None:
        """Tie them together."""
        self.call, self.generation, self.reply = call, generation, reply


class _Done:
    """What a request has that only ended others: one piece with nothing in it."""

    def __init__(self) -> None:
        self._left = [GenerateChunk([], True, [])]

    def __aiter__(self) -> "_Done":
        return self

    async def __anext__(self) -> GenerateChunk:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()

    def listen(self, _: Callable[[], None]) -> None:
        pass

    def take(self) -> GenerateChunk:
        return self._left.pop()

    def cancel(self) -> None:
        pass


class InferService:
    """Begins requests, whatever RPC they came by."""

    def __init__(self, models: Models, max_unread: int) -> None:
        """Serve ``models``; a stream may leave ``max_unread`` bytes of answers unread."""
        self._models, self._service = models, GenerateService(models, max_unread)

    def backlog(self) -> Backlog:
        """For the answers of one stream."""
        return self._service.backlog()

    def begin(self, request: pb.ModelInferRequest, unary: bool, backlog: Backlog, headers: Headers) -> Answer:
        """Check a request and hand it to its engine; ``headers``: those that it came with.

        Raises ``OctavoError``; whoever has the answer must end it.
        """
        route = self._models.find(request.model_name, request.model_version)
        with self._service.arriving(route, headers) as arrival:
            return self._begin(request, unary, route, arrival._replace(owner=owner_of(headers)), backlog)

    async def ModelInfer(self, request: pb.ModelInferRequest, headers: Headers) -> pb.ModelInferResponse:
        """The whole answer in one message."""
        answer = self.begin(request, unary=True, backlog=self.backlog(), headers=headers)
        try:
            return answer.reply.unary(await anext(answer.generation))
        except OctavoError as error:
            raise worded(error, request.id) from None
        finally:
            answer.generation.cancel()

    def _begin(self, request: pb.ModelInferRequest, unary: bool, route: Route, arrival: Arrival, backlog: Backlog) -> Answer:
        call = route.tensors.read(request, unary)
        if isinstance(call, TritonStop):
            assert arrival.owner is not None
            self._models.stop(call.model, call.id, arrival.owner)
            return Answer(call, _Done(), StopReply(call, route.version))
        engine = self._models.engine(route)
        generation = engine.generate(call.request, arrival, backlog)
        return Answer(call, generation, TritonReply(call, engine.tokenizer.token_text))


def worded(error: OctavoError, request_id: str) -> OctavoError:
    """``error`` in the words of Triton's core, which puts the request's id before the texts of its queue."""
    return Overloaded(str(prefixed(request_id, str(error)))) if isinstance(error, Overloaded) else error
