"""TLS and mutual TLS on both ports, with real clients; and what is wrong with certificates is said at the start."""

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from calls import infer_request, text_of
from certificates import Authority, Pair
from server import Server, running
from tritonclient.utils import InferenceServerException

from octavo.serving.options import BadFlag
from octavo.serving.tls import tls_files


class World:
    """An authority with a server's and a client's certificate, and another authority with a client's."""

    def __init__(self, folder: Path) -> None:
        ours, other = Authority(folder, "ours"), Authority(folder, "other")
        self.root, self.other_root = ours.root, other.root
        self.server, self.client, self.stranger = ours.sign("server"), ours.sign("client"), other.sign("stranger")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("certificates"))


def flags(world: World, *more: str) -> list[str]:
    both = [f"--{port}-{flag}" for port in ("grpc", "http") for flag in (f"server-cert={world.server.certificate}",)]
    return [*both, *(f"--{port}-server-key={world.server.key}" for port in ("grpc", "http")), *more]


@pytest.fixture(scope="module")
def plain(repository: Path, world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    explicit = ["--model-control-mode=explicit", "--load-model=tiny"]
    with running(repository, *explicit, *flags(world, "--grpc-use-ssl=1", "--http-use-ssl"), log=log) as server:
        yield server


@pytest.fixture(scope="module")
def mutual(repository: Path, world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    roots = [f"--{port}-{flag}" for port in ("grpc", "http") for flag in (f"root-cert={world.root}", "use-ssl-mutual=true")]
    with running(repository, "--model-control-mode=explicit", *flags(world, *roots), log=log) as server:
        yield server


def grpc_client(server: Server, root: Path, pair: Pair | None = None) -> triton.InferenceServerClient:
    files = {"private_key": str(pair.key), "certificate_chain": str(pair.certificate)} if pair else {}
    return triton.InferenceServerClient(server.grpc, ssl=True, root_certificates=str(root), **files)


def http_status(server: Server, root: Path, pair: Pair | None = None) -> int:
    context = ssl.create_default_context(cafile=str(root))
    if pair:
        context.load_cert_chain(pair.certificate, pair.key)
    connection = http.client.HTTPSConnection(server.http, timeout=10, context=context)
    try:
        connection.request("GET", "/v2/health/live")
        return connection.getresponse().status
    finally:
        connection.close()


def test_tls(plain: Server, world: World) -> None:
    client = grpc_client(plain, world.root)
    assert client.is_server_ready()
    assert text_of(client._client_stub.ModelInfer(infer_request(stream=False), timeout=30))
    client.close()
    assert http_status(plain, world.root) == 200


def test_a_client_that_does_not_trust_the_server(plain: Server, world: World) -> None:
    client = grpc_client(plain, world.other_root)
    with pytest.raises(InferenceServerException):
        client.is_server_live(client_timeout=5)
    client.close()
    with pytest.raises(ssl.SSLError):
        http_status(plain, world.other_root)


def test_a_client_without_tls(plain: Server) -> None:
    client = plain.client()
    with pytest.raises(InferenceServerException):
        client.is_server_live(client_timeout=5)
    client.close()
    with pytest.raises(OSError):
        plain.get("/v2/health/live")


def test_a_client_of_another_protocol_gets_no_connection(plain: Server, world: World) -> None:
    """What speaks HTTP/2 says so in the handshake; no other protocol's client is to be led here."""
    host, port = plain.grpc.rsplit(":", 1)
    context = ssl.create_default_context(cafile=str(world.root))
    plain_socket = socket.create_connection((host, int(port)), timeout=20)
    with context.wrap_socket(plain_socket, server_hostname=host) as connection, contextlib.suppress(ConnectionError):
        assert connection.recv(1 << 16) == b""


def test_mutual_tls(mutual: Server, world: World) -> None:
    client = grpc_client(mutual, world.root, world.client)
    assert client.is_server_live()
    client.close()
    assert http_status(mutual, world.root, world.client) == 200


@pytest.mark.parametrize("who", [None, "stranger"])
def test_mutual_tls_keeps_everybody_else_out(mutual: Server, world: World, who: str | None) -> None:
    pair = getattr(world, who) if who else None
    client = grpc_client(mutual, world.root, pair)
    with pytest.raises(InferenceServerException):
        client.is_server_live(client_timeout=5)
    client.close()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        http_status(mutual, world.root, pair)


def test_what_is_wrong_with_certificates(world: World, tmp_path: Path) -> None:
    certificate, key = world.server
    assert tls_files("grpc", False, False, certificate, None, None) is None
    mistakes = [
        ((True, False, certificate, None, None), "--grpc-use-ssl needs --grpc-server-cert and --grpc-server-key."),
        ((True, False, certificate, tmp_path / "none", None), "must be readable PEM files that belong together"),
        ((True, False, certificate, world.client.key, None), "must be readable PEM files that belong together"),
        ((False, True, certificate, key, None), "--grpc-use-ssl-mutual needs --grpc-root-cert."),
        ((False, True, certificate, key, key), "--grpc-root-cert must be a readable PEM file of certificates."),
    ]
    for arguments, text in mistakes:
        with pytest.raises(BadFlag, match=text):
            tls_files("grpc", *arguments)


def test_a_server_says_so_and_does_not_start(repository: Path, tmp_path: Path) -> None:
    server = Server(repository, "--grpc-use-ssl=true", log=tmp_path / "log")
    assert server.process.wait(timeout=60) == 1
    assert "--grpc-use-ssl needs --grpc-server-cert and --grpc-server-key." in server.log.read_text()
    assert server.stop() == 1
