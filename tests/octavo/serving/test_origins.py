"""Pages of other origins make nobody work, although a browser sends their simple requests without asking first."""

import json

import pytest
from http_calls import call
from server import Server

SIMPLE = {"Content-Type": "text/plain"}
COMPLETION = json.dumps({"model": "tiny", "prompt": "hello", "max_tokens": 2}).encode()
CALLS = {
    "/v1/completions": COMPLETION,
    "/openai/v1/completions": COMPLETION,
    "/v2/models/tiny/generate": b'{"text_input": "hello", "max_tokens": 2}',
    "/v2/repository/index": b"{}",
    "/v2/repository/models/other/unload": b"{}",
    "/v2/nope": b"",
}
FOREIGN = [
    "https://evil.example",
    "null",
    "",
    "http://",
    "http://[",
    "http://127.0.0.1",
    "http://127.0.0.1:1",
    "chrome-extension://x",
]


@pytest.mark.parametrize("path", CALLS)
def test_a_page_of_another_origin_is_refused(server: Server, path: str) -> None:
    reply = call(server, "POST", path, CALLS[path], {**SIMPLE, "Origin": "https://evil.example"})
    assert reply.status == 403
    assert b"--http-cors-origin" in reply.body
    assert ("message" in reply.json["error"]) is ("v1" in path)


@pytest.mark.parametrize("origin", FOREIGN)
def test_only_the_server_s_own_origin_is_not_another(server: Server, origin: str) -> None:
    assert call(server, "POST", "/v1/completions", COMPLETION, {**SIMPLE, "Origin": origin}).status == 403
    assert call(server, "DELETE", "/v1/completions", b"", {"Origin": origin}).status == 403


def test_everybody_else_is_served(server: Server) -> None:
    for headers in ({}, {"Origin": f"http://{server.http}"}, {"Origin": f"https://{server.http}"}):
        assert call(server, "POST", "/v1/completions", COMPLETION, headers).status == 200
    assert call(server, "GET", "/v1/models", headers={"Origin": "https://evil.example"}).status == 200
