"""``route``: a path whose errors are answered in its dialect. Knows neither models nor dialects."""

from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from octavo.errors import OctavoError
from octavo.serving.http.errors import visible

Handle = Callable[[Request], Awaitable[Response]]
CLIENT_GONE = 499


def route(path: str, method: str, handle: Handle, refuse: Callable[[OctavoError], Response]) -> Route:
    """Requests of ``method`` go to ``handle``; ``refuse`` makes an answer of what it raises."""

    async def answer(request: Request) -> Response:
        try:
            return await handle(request)
        except ClientDisconnect:
            return Response(status_code=CLIENT_GONE)
        except Exception as error:
            return refuse(visible(error))

    return Route(path, answer, methods=[method])
