"""The HTTP application of a front end: every route of Triton's that this server has, with Triton's answers, and OpenAI's."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from octavo.errors import OctavoError, Unsupported
from octavo.serving.auth import Gate
from octavo.serving.control import FrontEndSetup
from octavo.serving.http.errors import error_json, refusal
from octavo.serving.http.guard import guarded
from octavo.serving.http.infer import InferEndpoints
from octavo.serving.http.load_report import reporting_load
from octavo.serving.http.openai import errors as openai
from octavo.serving.http.openai.request_ids import HEADER, with_request_ids
from octavo.serving.http.openai.routes import openai_routes
from octavo.serving.http.origins import from_known_origins
from octavo.serving.http.page.routes import page_routes
from octavo.serving.http.repository import RepositoryEndpoints
from octavo.serving.http.route import Handle, route
from octavo.serving.http.settings import SettingsEndpoints
from octavo.serving.identity import EXTENSIONS, NAME, VERSION
from octavo.serving.link import Link
from octavo.serving.models import Models
from octavo.serving.traffic import Traffic

# Parts of Triton's protocol that this server does not have, by the paths that begin with them.
ABSENT = {
    "systemsharedmemory": "system shared memory",
    "cudasharedmemory": "CUDA shared memory",
}


def http_app(setup: FrontEndSetup, models: Models, link: Link, traffic: Traffic) -> ASGIApp:
    """The application behind its gate; ``traffic`` counts its calls."""
    gate = setup.security.http_gate()
    routes = http_routes(models, link, gate, setup.http_max_input_size, setup.max_response_buffer_size)
    if setup.http_page:
        routes += page_routes(link)
    app = Starlette(routes=routes, exception_handlers={HTTPException: _no_such_route})
    app.router.redirect_slashes = False
    guarded_app = reporting_load(guarded(app, gate, _refusal), app, link)
    origins = setup.http_cors_origins
    return _counted(with_request_ids(from_known_origins(_shared(guarded_app, origins), origins, _refusal)), traffic)


def http_routes(models: Models, link: Link, gate: Gate, limit: int, max_unread: int) -> list[Route]:
    """Every route; a body has at most ``limit`` bytes, a stream at most ``max_unread`` that nobody reads.

    Each has to be in the table of ``groups``.
    """
    health, infer = _Health(models, link), InferEndpoints(models, limit, max_unread)
    repository, settings = RepositoryEndpoints(models, link, limit), SettingsEndpoints(models, link, gate, limit)
    return [
        *openai_routes(models, limit, max_unread),
        _route("/v2", "GET", health.server),
        _route("/v2/health/live", "GET", health.live),
        _route("/v2/health/ready", "GET", health.ready),
        _route("/v2/models/stats", "GET", repository.statistics, "stats"),
        *_of_model("/ready", "GET", health.model_ready),
        *_of_model("/infer", "POST", infer.infer),
        *_of_model("/generate", "POST", infer.generate),
        *_of_model("/generate_stream", "POST", infer.generate_stream),
        *_of_model("/config", "GET", repository.config),
        *_of_model("/stats", "GET", repository.statistics, "stats"),
        *_of_model("/trace/setting", "GET", settings.trace),
        *_of_model("/trace/setting", "POST", settings.change_trace),
        *_of_model("", "GET", repository.metadata),
        _route("/v2/repository/index", "POST", repository.index),
        _route("/v2/repository/models/{model}/load", "POST", repository.load, "load"),
        _route("/v2/repository/models/{model}/unload", "POST", repository.unload),
        _route("/v2/repository/{repository}/index", "POST", repository.other_repository),
        _route("/v2/repository/{repository}/models/{model}/{action:path}", "POST", repository.other_repository),
        _route("/v2/trace/setting", "GET", settings.trace),
        _route("/v2/trace/setting", "POST", settings.change_trace),
        _route("/v2/logging", "GET", settings.log),
        _route("/v2/logging", "POST", settings.change_log),
        *(_absent(path, what) for path, what in ABSENT.items()),
    ]


class _Health:
    """What probes and service meshes ask."""

    def __init__(self, models: Models, link: Link) -> None:
        self._models, self._link = models, link

    async def server(self, _: Request) -> Response:
        return JSONResponse({"name": NAME, "version": VERSION, "extensions": EXTENSIONS})

    async def live(self, _: Request) -> Response:
        return _state("live", holds=not self._models.exiting and not self._link.silent)

    async def ready(self, _: Request) -> Response:
        return _state("ready", holds=self._models.ready and not self._models.exiting)

    async def model_ready(self, request: Request) -> Response:
        if self._models.is_ready(request.path_params["model"], request.path_params.get("version", "")):
            return PlainTextResponse()
        return JSONResponse({"error": "Model version not ready"}, status_code=400)


def _of_model(path: str, method: str, handle: Handle, name: str = "") -> list[Route]:
    return [
        _route(f"/v2/models/{{model}}{path}", method, handle, name),
        _route(f"/v2/models/{{model}}/versions/{{version}}{path}", method, handle, name),
    ]


def _route(path: str, method: str, handle: Handle, name: str = "") -> Route:
    """A route whose errors are answered by the one table, in which it may have a ``name``."""
    return route(path, method, handle, lambda error: refusal(error, name))


def _absent(path: str, what: str) -> Route:
    async def refuse(_: Request) -> Response:
        return refusal(Unsupported(f"This server does not implement {what}."), path)

    return Route(f"/v2/{path}{{rest:path}}", refuse, methods=["GET", "POST"])


def _counted(app: ASGIApp, traffic: Traffic) -> ASGIApp:
    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        with traffic.call():
            await app(scope, receive, send)

    return call


def _shared(app: ASGIApp, origins: list[str]) -> ASGIApp:
    """``app``, of whose answers pages of ``origins`` may read. A browser asks first and without credentials, so before the gate."""
    if not origins:
        return app
    return CORSMiddleware(app, origins, allow_methods=["*"], allow_headers=["*"], expose_headers=[HEADER, "Retry-After"])


def _refusal(error: OctavoError, path: str) -> Response:
    """What is refused before a route is found, in the dialect of the path."""
    return openai.refusal(error) if openai.speaks_openai(path) else refusal(error, "")


def _state(name: str, holds: bool) -> Response:
    """Probes read the status; KServe's SDK reads the body."""
    return JSONResponse({name: holds}, status_code=200 if holds else 400)


def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers, path = dict(error.headers or {}), request.url.path
    if openai.speaks_openai(path):
        return openai.no_route(request.method, path, error.status_code, headers)
    return Response(error_json(error.detail), error.status_code, headers, "application/json")
