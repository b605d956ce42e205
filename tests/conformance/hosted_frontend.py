"""Octavo's front-end process with test models: where the server would ask an engine, ``backend`` answers for some names."""

from conformance import backend
from octavo.serving import frontend
from octavo.serving.grpc import server
from octavo.serving.http import infer as http_infer
from octavo.serving.models import Route
from octavo.serving.served import Arrival
from octavo.serving.services.infer import Answer, InferService
from octavo.text.backlog import Backlog
from octavo.wire import pb


class HostedInferService(InferService):
    """Begins requests for test models itself, and leaves the others, and every look-up, to the server."""

    def _begin(self, request: pb.ModelInferRequest, unary: bool, route: Route, arrival: Arrival, backlog: Backlog) -> Answer:
        model = backend.MODELS.get(route.name)
        if model is None:
            return super()._begin(request, unary, route, arrival, backlog)
        self._models.engine(route)
        return Answer(*backend.begin(model, request, route.version))


server.InferService = http_infer.InferService = HostedInferService

if __name__ == "__main__":
    frontend.main()
