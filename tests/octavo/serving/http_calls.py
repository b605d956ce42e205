"""HTTP calls byte by byte, on the standard library's client."""

import http.client
import json
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from typing import Any, NamedTuple

from server import Server

PATIENCE = 60.0


class Reply(NamedTuple):
    """A whole reply."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def refusal(self) -> tuple[int, str]:
        """The status and the text of an error."""
        assert list(self.json) == ["error"]
        return self.status, self.json["error"]


def call(
    server: Server, method: str, path: str, body: bytes | Iterable[bytes] | None = None, headers: dict[str, str] | None = None
) -> Reply:
    """One call on a connection of its own. An iterable body is sent in chunks."""
    chunked = body is not None and not isinstance(body, bytes)
    with closing(http.client.HTTPConnection(server.http, timeout=PATIENCE)) as connection:
        connection.request(method, path, body, headers or {}, encode_chunked=chunked)
        response = connection.getresponse()
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def post(server: Server, path: str, value: object, headers: dict[str, str] | None = None) -> Reply:
    """One POST of ``value`` as JSON, or of bytes as they are."""
    return call(server, "POST", path, value if isinstance(value, bytes) else json.dumps(value).encode(), headers)


def events(server: Server, path: str, value: object) -> Iterator[Any]:
    """The server-sent events of a POST, each as soon as it is there. Closing the iterator hangs up."""
    with closing(http.client.HTTPConnection(server.http, timeout=PATIENCE)) as connection:
        connection.request("POST", path, json.dumps(value).encode())
        response = connection.getresponse()
        assert response.getheader("content-type") == "text/event-stream; charset=utf-8"
        yield response.status
        while line := response.readline():
            assert line.startswith(b"data: ")
            assert response.readline() == b"\n"
            yield json.loads(line.removeprefix(b"data: "))


def raw(server: Server, data: bytes) -> bytes:
    """What the server says to ``data`` until it hangs up; nothing if it did before it had all of it."""
    host, port = server.http.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        said = b""
        with suppress(ConnectionError):
            connection.sendall(data)
            while part := connection.recv(1 << 16):
                said += part
        return said


def text_tensor(text: str, name: str = "text_input") -> dict[str, Any]:
    return {"name": name, "datatype": "BYTES", "shape": [1], "data": [text]}


def infer_body(prompt: str = "hello", max_tokens: int = 8, **more: Any) -> dict[str, Any]:
    """A greedy ``infer`` call for exactly ``max_tokens``."""
    parameters = {"temperature": 0, "ignore_eos": True, "max_tokens": max_tokens}
    return {"inputs": [text_tensor(prompt)], "parameters": parameters, **more}


def generate_body(prompt: str = "hello", max_tokens: int = 8, **more: Any) -> dict[str, Any]:
    """The same as a ``generate`` call."""
    return {"text_input": prompt, "temperature": 0, "ignore_eos": True, "max_tokens": max_tokens, **more}


def binary_body(head: dict[str, Any], *tensors: bytes) -> tuple[bytes, dict[str, str]]:
    """A body of JSON and bytes, and the header that says where one ends and the other begins."""
    text = json.dumps(head).encode()
    return b"".join([text, *tensors]), {"Inference-Header-Content-Length": str(len(text))}


def prefixed(text: bytes) -> bytes:
    """A string tensor of one element."""
    return struct.pack("<I", len(text)) + text
