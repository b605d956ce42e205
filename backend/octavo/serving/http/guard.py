"""``guarded``: asks the gate about every request of an HTTP application, also to paths that no route has."""

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from octavo.errors import ErrorKind, OctavoError
from octavo.serving.auth import Gate
from octavo.serving.groups import Group, group_of_route
from octavo.serving.http.errors import error_json, status_of


def guarded(app: Starlette, gate: Gate) -> ASGIApp:
    """``app`` behind ``gate``. The group of a request is that of the route which the application itself would choose."""
    if not gate.closed:
        return app

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            gate.check(_group(app, scope), Headers(scope=scope).get)
        except OctavoError as error:
            challenge = {"WWW-Authenticate": "Bearer"} if error.kind is ErrorKind.UNAUTHENTICATED else None
            response = Response(error_json(str(error)), status_of(error, ""), challenge, "application/json")
            await response(scope, receive, send)
        else:
            await app(scope, receive, send)

    return call


def _group(app: Starlette, scope: Scope) -> Group | None:
    for wanted in (Match.FULL, Match.PARTIAL):
        for route in app.routes:
            if route.matches(scope)[0] is wanted:
                return group_of_route(route.path) if isinstance(route, Route) else None
    return None
