"""Calls of the OpenAI API, by its official client and byte by byte."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from http_calls import PATIENCE, Reply, post
from openai import OpenAI
from server import Server

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
HI = [{"role": "user", "content": "Hi"}]
# A greedy answer of exactly as many tokens as are asked for.
GREEDY: dict[str, Any] = {"model": "tiny", "temperature": 0, "extra_body": {"ignore_eos": True}}


def connected(server: Server, base: str = "/v1") -> OpenAI:
    """A client that tries everything once."""
    return OpenAI(base_url=f"http://{server.http}{base}", api_key="none", max_retries=0, timeout=PATIENCE)


def chat_body(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": HI, "temperature": 0, "ignore_eos": True, "max_tokens": 8} | more


def completion_body(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "prompt": "hello", "temperature": 0, "ignore_eos": True, "max_tokens": 8} | more


def responses_body(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "input": "Hi", "temperature": 0, "ignore_eos": True, "max_output_tokens": 8} | more


def error_of(reply: Reply) -> dict[str, Any]:
    """The error that a reply tells of, which has all four members."""
    assert list(reply.json) == ["error"]
    error = reply.json["error"]
    assert list(error) == ["message", "type", "param", "code"]
    return dict(error)


def refused(server: Server, path: str, body: object) -> tuple[int, str | None, str | None, str]:
    """Status, field, code and text of a refusal."""
    reply = post(server, path, body)
    error = error_of(reply)
    assert error["type"] == "invalid_request_error"
    return reply.status, error["param"], error["code"], error["message"]


def event_lines(server: Server, path: str, body: object) -> Iterator[bytes]:
    """The lines of a stream as they come. Closing the iterator hangs up."""
    with closing(http.client.HTTPConnection(server.http, timeout=PATIENCE)) as connection:
        connection.request("POST", path, json.dumps(body).encode())
        response = connection.getresponse()
        assert (response.status, response.getheader("content-type")) == (200, "text/event-stream; charset=utf-8")
        while line := response.readline():
            yield line
