"""``reporting_load``: tells whoever asks how busy this server is, in a header of the answer, as ORCA has it.

Balancers read it where a scrape of the metrics would be one service more. The names are Triton's and vLLM's.
"""

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octavo.serving.control import Load, ReadLoad
from octavo.serving.groups import Group
from octavo.serving.http.guard import group_of
from octavo.serving.link import Link

ASKED, TOLD = "endpoint-load-metrics-format", "endpoint-load-metrics"


def reporting_load(app: ASGIApp, routes: Starlette, link: Link) -> ASGIApp:
    """``app``, whose answers from models carry the header if the request asks for it; ``routes`` knows which those are."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        form = Headers(scope=scope).get(ASKED, "").lower() if scope["type"] == "http" else ""
        if form not in _FORMS or group_of(routes, scope) is not Group.INFERENCE:
            await app(scope, receive, send)
            return

        async def send_with_load(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                load = (await link.call(ReadLoad)).load
                assert load is not None
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
