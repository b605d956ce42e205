"""The HTTP application of a front end: what probes and service meshes ask, with Triton's answers."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from octavo.errors import OctavoError
from octavo.serving.http.errors import status_of
from octavo.serving.identity import EXTENSIONS, NAME, VERSION
from octavo.serving.models import Models


def health_app(models: Models) -> Starlette:
    """``/v2``, health and model readiness, answered from ``models``."""

    async def server(_: Request) -> Response:
        return JSONResponse({"name": NAME, "version": VERSION, "extensions": EXTENSIONS})

    async def live(_: Request) -> Response:
        return _empty(ok=not models.exiting)

    async def ready(_: Request) -> Response:
        return _empty(ok=models.ready and not models.exiting)

    async def model_ready(request: Request) -> Response:
        if models.is_ready(request.path_params["model"], request.path_params.get("version", "")):
            return _empty(ok=True)
        return JSONResponse({"error": "Model version not ready"}, status_code=400)

    routes = [
        Route("/v2", server),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        Route("/v2/models/{model}/ready", model_ready),
        Route("/v2/models/{model}/versions/{version}/ready", model_ready),
    ]
    return Starlette(routes=routes, exception_handlers={OctavoError: _refused})


def _empty(ok: bool) -> Response:
    return PlainTextResponse(status_code=200 if ok else 400)


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, OctavoError)
    return JSONResponse({"error": str(error)}, status_code=status_of(error))
