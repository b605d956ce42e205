"""``InferService``: inference requests to generations, for the unary RPC and for every stream."""

import logging
import time

from octavo.errors import OctavoError, Overloaded
from octavo.protocol.rejection import prefixed
from octavo.protocol.triton import TritonCall
from octavo.protocol.triton_reply import TritonReply
from octavo.serving.models import Models, Route
from octavo.serving.served import count_failure
from octavo.text.generator import Generation
from octavo.wire import pb

log = logging.getLogger(__name__)


class Answer:
    """A request that was begun: its ``generation``, and the ``reply`` that words it."""

    def __init__(self, call: TritonCall, generation: Generation, reply: TritonReply) -> None:
        """Tie them together."""
        self.call, self.generation, self.reply = call, generation, reply


class InferService:
    """Begins requests, whatever RPC they came by."""

    def __init__(self, models: Models) -> None:
        """Serve ``models``."""
        self._models = models

    def begin(self, request: pb.ModelInferRequest, unary: bool) -> Answer:
        """Check a request and hand it to its engine. Raises ``OctavoError``; whoever has the answer must end it."""
        received_at = time.monotonic()
        route = self._models.find(request.model_name, request.model_version)
        try:
            return self._begin(request, unary, route, received_at)
        except OctavoError as error:
            count_failure(self._models.ledger.of(route.name, route.version), error, time.monotonic() - received_at)
            raise

    async def ModelInfer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        """The whole answer in one message."""
        answer = self.begin(request, unary=True)
        try:
            return answer.reply.unary(await anext(answer.generation))
        except OctavoError as error:
            raise worded(error, request.id) from None
        finally:
            answer.generation.cancel()

    def _begin(self, request: pb.ModelInferRequest, unary: bool, route: Route, received_at: float) -> Answer:
        call = route.tensors.read(request, unary)
        engine = self._models.engine(route)
        generation = engine.generate(call.request, received_at)
        log.debug("Request %r for model %s version %d has begun.", call.id[:64], route.name, route.version)
        return Answer(call, generation, TritonReply(call, engine.tokenizer.token_text))


def worded(error: OctavoError, request_id: str) -> OctavoError:
    """``error`` in the words of Triton's core, which puts the request's id before the texts of its queue."""
    return Overloaded(str(prefixed(request_id, str(error)))) if isinstance(error, Overloaded) else error
