"""``guarded``: asks the gate about every request of an HTTP application, also to paths that no route has."""

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from octavo.errors import ErrorKind, OctavoError
from octavo.serving.auth import Gate
from octavo.serving.groups import Group, group_of_route

Refusal = Callable[[OctavoError, str], Response]


def guarded(app: Starlette, gate: Gate, refusal: Refusal) -> ASGIApp:
    """``app`` behind ``gate``. The group of a request is that of the route which the application itself would choose.

    ``refusal`` words an error for whoever called a path.
    """
    if not gate.closed:
        return app

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            gate.check(group_of(app, scope), Headers(scope=scope).get)
        except OctavoError as error:
            response = refusal(error, scope["path"])
            if error.kind is ErrorKind.UNAUTHENTICATED:
                response.headers["WWW-Authenticate"] = "Bearer"
            await response(scope, receive, send)
        else:
            await app(scope, receive, send)

    return call


def group_of(app: Starlette, scope: Scope) -> Group | None:
    """The group of the route that ``app`` itself would choose for a request, None without one."""
    for wanted in (Match.FULL, Match.PARTIAL):
        for route in app.routes:
            if route.matches(scope)[0] is wanted:
                return group_of_route(route.path) if isinstance(route, Route) else None
    return None
