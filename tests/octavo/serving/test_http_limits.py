"""What an HTTP client may not send: bodies and headers without an end, bombs, garbage. Each costs nothing and is answered."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from http_calls import call, infer_body, post, raw
from server import Server, running

INFER = "/v2/models/tiny/infer"
LIMIT = 64 * 2**20
TOO_LARGE = f"The request body must have at most {LIMIT} bytes after decompression."
BODY = json.dumps(infer_body()).encode()


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_a_body_in_chunks(server: Server, size: int) -> None:
    assert call(server, "POST", INFER, pieces(BODY, size)).json == post(server, INFER, BODY).json


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_packed_body_and_a_packed_reply(server: Server, encoding: str, pack: object) -> None:
    headers = {"Content-Encoding": encoding, "Accept-Encoding": f"br;q=1, {encoding};q=0.5"}
    reply = call(server, "POST", INFER, pieces(pack(BODY), 10), headers)
    assert (reply.status, reply.headers["content-encoding"]) == (200, encoding)
    assert json.loads(zlib.decompress(reply.body, 47)) == post(server, INFER, BODY).json


@pytest.mark.parametrize(
    ("body", "encoding", "status", "text"),
    [
        (BODY, "gzip", 400, "The request body is not valid gzip or deflate data, as its Content-Encoding says."),
        (gzip.compress(BODY)[:-9], "gzip", 400, "The request body ends before its compressed data does."),
        (b"", "gzip", 400, "The request body ends before its compressed data does."),
        (gzip.compress(BODY) + b"x", "gzip", 400, "The request body goes on after its compressed data."),
        (BODY, "br", 501, "Unsupported compression type"),
    ],
)
def test_a_body_that_is_not_packed_as_it_says(server: Server, body: bytes, encoding: str, status: int, text: str) -> None:
    assert post(server, INFER, body, {"Content-Encoding": encoding}).refusal == (status, text)


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """A GiB of zeros, packed."""
    packer = zlib.compressobj(1, wbits=31)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(2**10)) + packer.flush()


@pytest.mark.parametrize("path", [INFER, "/v2/models/tiny/generate", "/v2/repository/index", "/v2/repository/models/x/load"])
def test_a_bomb_costs_nothing(server: Server, bomb: bytes, path: str) -> None:
    assert len(bomb) < 2**23
    (front_end,) = server.processes("frontend")
    before = front_end.memory_info().rss
    for _ in range(3):
        assert post(server, path, bomb, {"Content-Encoding": "gzip"}).refusal == (413, TOO_LARGE)
    assert psutil.Process(front_end.pid).memory_info().rss - before < 4 * LIMIT


def test_a_body_over_the_limit_is_refused_before_it_is_sent(server: Server) -> None:
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {LIMIT + 1}\r\n\r\n"
    assert raw(server, head.encode()).startswith(b"HTTP/1.1 413 ")
    assert raw(server, head.replace(str(LIMIT + 1), "9" * 19).encode()).startswith(b"HTTP/1.1 413 ")


def test_the_limit_can_be_set(repository: Path, tmp_path: Path) -> None:
    flags = ("--model-control-mode=explicit", "--load-model=tiny", "--http-max-input-size=1000")
    with running(repository, *flags, log=tmp_path / "log") as small:
        assert post(small, INFER, BODY.ljust(1000)).status == 200
        text = "The request body must have at most 1000 bytes after decompression."
        assert post(small, INFER, BODY.ljust(1001)).refusal == (413, text)
        assert post(small, INFER, gzip.compress(BODY.ljust(1001)), {"Content-Encoding": "gzip"}).refusal == (413, text)


def test_chunks_over_the_limit_are_refused(server: Server) -> None:
    (front_end,) = server.processes("frontend")
    before = front_end.memory_info().rss
    try:
        reply = call(server, "POST", INFER, (bytes(2**20) for _ in range(70)))
    except (BrokenPipeError, ConnectionResetError):
        pass
    else:
        assert reply.refusal == (413, TOO_LARGE)
    assert psutil.Process(front_end.pid).memory_info().rss - before < 4 * LIMIT
    assert server.get("/v2/health/ready")[0] == 200


def test_a_header_at_the_limit_and_over_it(server: Server) -> None:
    assert call(server, "GET", "/v2/health/ready", headers={"x": "y" * 15_000}).status == 200
    over = call(server, "GET", "/v2/health/ready", headers={"x": "y" * 17_000})
    assert over.refusal == (431, "The header of a request must have at most 16384 bytes.")
    many = call(server, "GET", "/v2/health/ready", headers={f"x-{i}": "y" * 100 for i in range(200)})
    assert many.status == 431
    assert call(server, "GET", "/v2/" + "x" * 17_000).status == 431


def test_a_header_without_an_end(server: Server) -> None:
    head = b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\nx: "
    for endless in (b"y" * 2**25, b"y\r\nz: " * 2**22):
        said = raw(server, head + endless)
        assert not said or said.startswith(b"HTTP/1.1 431 ")
    assert server.get("/v2/health/ready")[0] == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_http_is_answered_or_hung_up_on(server: Server, data: bytes) -> None:
    said = raw(server, data)
    assert not said or b" 400 " in said.split(b"\r\n")[0]
    assert server.get("/v2/health/ready")[0] == 200


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_upgrade_is_not_made_and_costs_no_body(server: Server, protocol: bytes, chunked: bool) -> None:
    """As Java's client asks for HTTP/2 whenever it may."""
    size = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(BODY)
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY) if chunked else BODY
    head = b"POST %b HTTP/1.1\r\nHost: x\r\n%b\r\nHTTP2-Settings: AAEAAEAA\r\n" % (INFER.encode(), size)
    asking = head + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %b\r\n\r\n" % protocol + sent
    last = head + b"Connection: close\r\n\r\n" + sent
    expected = post(server, INFER, BODY).body
    said = raw(server, asking * 3 + last)
    assert said.count(b"HTTP/1.1 200 ") == 4
    assert said.count(expected) == 4
    assert b"upgrade" not in said.lower()


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_an_upgrade_is_not_made_for_the_last_request_of_a_connection_either(server: Server, version: bytes) -> None:
    """As proxies ask that pass on the field and no connection."""
    head = b"POST %b HTTP/%b\r\nHost: x\r\nContent-Length: %d\r\n" % (INFER.encode(), version, len(BODY))
    asking = head + b"Connection: upgrade, close\r\nUpgrade: h2c\r\n\r\n" + BODY
    said = raw(server, asking)
    assert said.count(b"HTTP/1.1 200 ") == 1
    assert said.endswith(post(server, INFER, BODY).body)


def test_tunnels_are_not_made(server: Server) -> None:
    said = raw(server, b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\nUpgrade: h2c\r\nConnection: Upgrade, close\r\n\r\n")
    assert said.split(b" ")[1] in (b"400", b"404", b"405")


def test_a_caller_that_vanishes_within_its_body(server: Server) -> None:
    import socket

    host, port = server.http.rsplit(":", 1)
    for _ in range(20):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc".encode())
    server.wait_until_free()
    assert post(server, INFER, BODY).status == 200
