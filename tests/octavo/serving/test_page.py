"""The page for people: who gets it, what a browser lets it do, and that the engines are asked only while somebody watches."""

import asyncio
import base64
import hashlib
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq.asyncio
from http_calls import Reply, call
from openai_calls import chat_body, event_lines
from server import Server

from octavo.config import EngineConfig, WeightsFormat
from octavo.engine.control import EngineReport, PictureQuery
from octavo.engine.picture import FIRST_OWNER
from octavo.serving import engines
from octavo.serving.engines import Engines
from octavo.serving.hub import Hub

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
DEAF = EngineConfig(name="m", version=1, weights="", weights_format=WeightsFormat.GGUF, tokenizer="", device="cpu")


@pytest.fixture(scope="module")
def page(server: Server) -> Reply:
    return call(server, "GET", "/", headers={"Accept": BROWSER})


def live(server: Server) -> dict[str, Any]:
    reply = call(server, "GET", "/page/live")
    assert (reply.status, reply.headers["cache-control"]) == (200, "no-store")
    return {model["name"]: model for model in reply.json["models"]}


def cells(picture: dict[str, Any]) -> list[int]:
    return np.frombuffer(base64.b64decode(picture["cells"]), "<u2").tolist()


def test_a_browser_gets_it_and_all_others_what_they_got_before(server: Server, page: Reply) -> None:
    assert (page.status, page.headers["content-type"], page.headers["vary"]) == (200, "text/html; charset=utf-8", "Accept")
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        for method in ("GET", "POST", "DELETE"):
            assert call(server, method, "/", headers=headers).refusal == (404, "Not Found")
    assert call(server, "POST", "/", headers={"Accept": BROWSER}).status == 405


def test_its_policy_allows_what_is_in_it_and_nothing_else(page: Reply) -> None:
    policy = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
    hashes: dict[bytes, list[str]] = {b"script": [], b"style": []}
    for kind, text in re.findall(rb"<(script|style)>(.*?)</\1>", page.body, re.DOTALL):
        hashes[kind].append(f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'")
    assert hashes[b"script"] and hashes[b"style"]
    assert policy == {
        "default-src": "'none'",
        "style-src": " ".join(hashes[b"style"]),
        "script-src": " ".join(hashes[b"script"]),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert (page.headers["x-content-type-options"], page.headers["referrer-policy"]) == ("nosniff", "same-origin")


def test_it_names_no_other_place_and_runs_nothing_from_an_attribute(page: Reply) -> None:
    text = page.body.decode()
    assert set(re.findall(r"\w+:/+[^\s'\"]*", text)) == {"http://www.w3.org/2000/svg"}, "an address other than a name of XML"
    assert re.findall(r"<[^>]*\s(?:on\w+|style|src|action|srcset)\s*=", text) == []
    assert re.findall(r"<(?:link|base|iframe|object|embed|img)\b.{0,22}", text) == ['<link rel="icon" href="data']
    assert re.findall(r"@import|url\(|innerHTML|outerHTML|insertAdjacentHTML|eval\(|localStorage|document\.cookie", text) == []
    assert "http" not in re.sub(r"http://www.w3.org/2000/svg", "", text)


def test_a_running_request_is_seen_with_its_pages_and_nothing_of_what_it_says(server: Server) -> None:
    said = [{"role": "user", "content": "a-secret " * 20}]
    body = chat_body(messages=said, max_tokens=1500, stream=True, request_id="my-own-id", user="me")
    lines = event_lines(server, "/v1/chat/completions", body)
    next(lines)
    server.wait_until(lambda: bool(live(server)["tiny"]["picture"]["requests"]), "the request to be seen")
    reply = call(server, "GET", "/page/live")
    (model,) = reply.json["models"]
    picture, stats = model["picture"], model["picture"]["stats"]
    assert (model["name"], model["version"], model["device"], model["page_size"]) == ("tiny", 1, "cpu", 16)
    assert (stats["running"], stats["waiting"], len(picture["requests"])) == (1, 0, 1)
    ((_, prompt_tokens, tokens, pages, seconds),) = picture["requests"]
    assert 180 < prompt_tokens < tokens <= prompt_tokens + 1500
    assert pages == stats["pages_used"] >= tokens // 16
    assert FIRST_OWNER in cells(picture)
    assert seconds > 0
    assert not re.search(rb"secret|my-own-id|\"me\"|127\.0", reply.body)
    lines.close()
    server.wait_until(lambda: not live(server)["tiny"]["picture"]["stats"]["running"], "the request to be over")
    picture = live(server)["tiny"]["picture"]
    assert (picture["requests"], picture["stats"]["pages_used"]) == ([], 0)
    assert picture["pages_cached"] >= 180 // 16


def test_what_many_watch_is_taken_once_in_a_while(server: Server) -> None:
    began = time.monotonic()
    taken = {live(server)["tiny"]["picture"]["taken_at"] for _ in range(12)}
    assert len(taken) <= 2 + (time.monotonic() - began) / engines.LOOK_EVERY


async def _pictures_asked_for(folder: Path, patch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures an engine that never answers was asked for: by statistics, by twenty who look at once, by one more."""
    hub: Hub[EngineReport] = Hub(zmq.asyncio.Context.instance(), f"ipc://{folder}/hub", EngineReport)
    orders: list[object] = []
    patch.setattr(hub, "send", lambda _, order: orders.append(order))
    running = Engines(hub, "deaf_engine", folder, failed=lambda error: None)
    counts = []
    try:
        await running.start(DEAF)
        for looks in (0, 20, 1):
            await asyncio.gather(running.collect(), *(running.look() for _ in range(looks)))
            counts.append(sum(isinstance(order, PictureQuery) for order in orders))
            patch.setattr(engines, "LOOK_EVERY", 0.0 if looks else 1000.0)
    finally:
        await running.close()
    return counts


def test_an_engine_is_asked_only_while_somebody_watches_and_not_again_before_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(engines, "STATS_PATIENCE", 0.05)
    assert asyncio.run(_pictures_asked_for(tmp_path, monkeypatch)) == [0, 1, 1]
