"""Requests with some bytes changed: each is answered, refused or hung up on, none is an error of ours, no page stays taken."""

import gzip
import json
import random
import socket
from collections.abc import Iterator

import pytest
from http_calls import binary_body, generate_body, infer_body, prefixed, text_tensor
from server import Server

FINE = {200, 400, 404, 405, 413, 431, 501, 503}
PATIENCE = 5.0
SIZED = {"name": "text_input", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 9}}
FLAG = {"name": "stream", "datatype": "BOOL", "shape": [1], "data": [False]}


def requests() -> list[tuple[str, dict[str, str], bytes]]:
    """(path, headers, body) of calls that are right."""
    model = "/v2/models/tiny/"
    mixed, length = binary_body(infer_body(max_tokens=2) | {"inputs": [SIZED, FLAG]}, prefixed(b"hello"))
    outputs = [{"name": "text_output", "parameters": {"binary_data": True}}]
    plain = json.dumps(infer_body(max_tokens=2, id="i", outputs=outputs)).encode()
    generate = json.dumps(generate_body(max_tokens=2, stop=["x"], parameters={"top_p": 0.5, "details": True}, id="g")).encode()
    chat = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "stream": True}).encode()
    return [
        (f"{model}infer", {}, plain),
        (f"{model}infer", length, mixed),
        (f"{model}infer", {"Content-Encoding": "gzip"}, gzip.compress(plain)),
        (f"{model}versions/1/infer", {}, json.dumps({"inputs": [text_tensor("a")]}).encode()),
        (f"{model}generate", {}, generate),
        (f"{model}generate_stream", {}, chat),
        ("/v2/repository/index", {}, b'{"ready": true}'),
        ("/v2/repository/models/nope/unload", {}, b'{"parameters": {"unload_dependents": false}}'),
    ]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """``data`` with one to four bytes or pieces changed, added, doubled or taken away."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        end = min(len(changed), at + chance.choice((1, 1, 2, 8, 64)))
        match chance.randrange(5):
            case 0:
                changed[at:end] = chance.randbytes(end - at)
            case 1:
                del changed[at:end]
            case 2:
                changed[at:at] = changed[at:end] * chance.randint(1, 9)
            case 3:
                changed[at:at] = chance.choice((b"[", b"{", b'"', b"\\u", b"\x00", b"-1", b"1e999", b"null", b"\xff", b"9" * 40))
            case _:
                other = chance.randrange(len(changed) + 1)
                changed[at:end] = changed[other : other + end - at]
    return bytes(changed)


def spoiled(number: int, chance: random.Random) -> Iterator[bytes]:
    """Whole requests: mostly with another body, sometimes with another header too."""
    known = requests()
    for at in range(number):
        path, headers, body = known[at % len(known)]
        body = mutated(body, chance)
        lines = [f"POST {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}"]
        head = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "\r\n"]).encode()
        yield (mutated(head, chance) if at % 16 == 0 else head) + body


def status(server: Server, data: bytes) -> int | None:
    """The status of the reply, None if the server hangs up or waits for more."""
    host, port = server.http.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        try:
            connection.sendall(data)
            said = connection.recv(1 << 16)
        except (TimeoutError, ConnectionError):
            return None
    return int(said.split(b" ", 2)[1]) if said else None


@pytest.mark.parametrize("seed", range(4))
def test_no_change_of_bytes_is_an_error_of_ours(server: Server, seed: int) -> None:
    server.wait_until_free()
    for data in spoiled(300, random.Random(seed)):
        assert status(server, data) in {*FINE, None}, data
    server.wait_until_free()
    assert server.get("/v2/health/ready")[0] == 200


@pytest.mark.long
def test_for_a_long_time(server: Server) -> None:
    for data in spoiled(20_000, random.Random()):
        assert status(server, data) in {*FINE, None}, data
    server.wait_until_free()
