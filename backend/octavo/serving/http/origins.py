"""``from_known_origins``: keeps web pages of other origins from making the server work. Knows no route.

A browser sends some requests of a page to any server without asking it first, and only hides the answer from the page.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from octavo.errors import Forbidden
from octavo.serving.http.guard import Refusal

_HARMLESS = {"GET", "HEAD", "OPTIONS"}
FOREIGN = "This server takes no requests of web pages of this origin; --http-cors-origin names those whose requests it takes."


def from_known_origins(app: ASGIApp, origins: list[str], refusal: Refusal) -> ASGIApp:
    """``app`` without the requests that change something or cost something and come from a page of neither ``origins`` nor ours.

    Only browsers say where a request is from; one that does not goes on. ``refusal`` words an error for whoever called a path.
    """
    if "*" in origins:
        return app

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in _HARMLESS:
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and origin not in origins and not _is_own(origin, scope["scheme"], headers.get("host", "")):
                await refusal(Forbidden(FOREIGN), scope["path"])(scope, receive, send)
                return
        await app(scope, receive, send)

    return call


def _is_own(origin: str, scheme: str, host: str) -> bool:
    """Whether a page of ``origin`` was itself had from ``host``. Behind a proxy that ends TLS, its scheme is not ours."""
    try:
        page = urlsplit(origin)
    except ValueError:
        return False
    return page.scheme in (scheme, "https") and page.netloc != "" and page.netloc.lower() == host.lower()
