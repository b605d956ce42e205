"""``reporting_load``: tells whoever asks how busy this server is, in a header of the answer, as ORCA has it.

Balancers read it where a scrape of the metrics would be one service more. The names are Triton's and vLLM's.
"""

import asyncio
import time
from contextlib import suppress

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octavo.errors import OctavoError
from octavo.serving.control import Load, ReadLoad
from octavo.serving.groups import Group
from octavo.serving.http.guard import group_of
from octavo.serving.link import Link

ASKED, TOLD = "endpoint-load-metrics-format", "endpoint-load-metrics"
LARGEST_AGE, PATIENCE = 0.1, 0.1


class _Reading:
    """The load as the supervisor last told it. All answers share one question, and none waits long for it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._load: Load | None = None
        self._read_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def now(self) -> Load | None:
        """The load at most ``LARGEST_AGE`` seconds ago, None if it is not to be had in time."""
        if not self._is_fresh():
            if self._asking is None or self._asking.done():
                self._asking = asyncio.ensure_future(self._ask())
            await asyncio.wait({self._asking}, timeout=PATIENCE)
        return self._load if self._is_fresh() else None

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._read_at <= LARGEST_AGE

    async def _ask(self) -> None:
        with suppress(OctavoError):
            self._load, self._read_at = (await self._link.call(ReadLoad)).load, time.monotonic()


def reporting_load(app: ASGIApp, routes: Starlette, link: Link) -> ASGIApp:
    """``app``, whose answers from models carry the header if the request asks for it; ``routes`` knows which those are."""
    reading = _Reading(link)

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        form = Headers(scope=scope).get(ASKED, "").lower() if scope["type"] == "http" else ""
        if form not in _FORMS or group_of(routes, scope) is not Group.INFERENCE:
            await app(scope, receive, send)
            return

        async def send_with_load(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                load = await reading.now()
                if load is not None:
                    MutableHeaders(scope=message)[TOLD] = _FORMS[form](_metrics(load))
            await send(message)

        await app(scope, receive, send_with_load)

    return call


def _metrics(load: Load) -> dict[str, float]:
    used = load.kv_cache_usage
    return {
        "kv_cache_utilization": used,
        "max_token_capacity": load.kv_cache_tokens,
        "kv_cache_usage_perc": used,
        "num_requests_waiting": load.waiting,
        "num_requests_running": load.running,
    }


def _text(metrics: dict[str, float]) -> str:
    return "TEXT " + ", ".join(f"named_metrics.{name}={value:g}" for name, value in metrics.items())


def _json(metrics: dict[str, float]) -> str:
    return "JSON " + msgspec.json.encode({"named_metrics": metrics}).decode()


_FORMS = {"text": _text, "json": _json}
