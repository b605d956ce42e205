"""``x-request-id``: what a client calls its request, or what we call it, on every reply of the dialect."""

import secrets

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octavo.protocol.openai.fields import MAX_ID_CHARACTERS
from octavo.serving.http.openai.errors import speaks_openai

HEADER = "x-request-id"
_STATE = "request_id"


def with_request_ids(app: ASGIApp) -> ASGIApp:
    """``app`` with the header on what it answers; one that comes and cannot be sent back is replaced."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not speaks_openai(scope["path"]):
            await app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state[_STATE] = _given(scope) or secrets.token_hex(16)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = state[_STATE]
            await send(message)

        await app(scope, receive, send_with_id)

    return call


def request_id(request: Request, named: str | None) -> str:
    """The id of ``request``: what the body has ``named`` it, or else the header, or else ours."""
    if named is not None and _sendable(named):
        request.scope["state"][_STATE] = named
    return str(request.scope["state"][_STATE])


def _given(scope: Scope) -> str | None:
    value = next((value for name, value in scope["headers"] if name == HEADER.encode()), b"").decode("latin-1")
    return value if _sendable(value) else None


def _sendable(value: str) -> bool:
    return 0 < len(value) <= MAX_ID_CHARACTERS and value.isascii() and value.isprintable()
