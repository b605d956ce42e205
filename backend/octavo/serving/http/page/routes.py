"""``page_routes``: the page, which asks for whatever it shows as any client does, and what it watches the engines by."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from octavo.serving.control import ReadPictures
from octavo.serving.http.errors import refusal
from octavo.serving.http.page.document import read_document
from octavo.serving.http.route import route
from octavo.serving.link import Link


def page_routes(link: Link) -> list[Route]:
    """Every route of the page. Each has to be in the table of ``groups``."""
    html, policy = read_document()
    headers = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-cache",
        "Referrer-Policy": "same-origin",
        "Vary": "Accept",
        "X-Content-Type-Options": "nosniff",
    }

    async def page(_: Request) -> Response:
        return Response(html, headers=headers, media_type="text/html")

    async def live(_: Request) -> Response:
        body = msgspec.json.encode({"models": (await link.call(ReadPictures)).pictures})
        return Response(body, headers={"Cache-Control": "no-store"}, media_type="application/json")

    return [_ForBrowsers("/", page, methods=["GET"]), route("/page/live", "GET", live, lambda error: refusal(error, ""))]


class _ForBrowsers(Route):
    """A route for those who ask for HTML by name. To all others it is not there."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As any route, if the request accepts ``text/html``."""
        accepted = (value for name, value in scope.get("headers", ()) if name == b"accept")
        return super().matches(scope) if any(b"text/html" in value for value in accepted) else (Match.NONE, {})
