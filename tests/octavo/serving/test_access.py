"""Every method and every route is in a group, and a server with credentials answers by that, also what it does not know."""

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from http_calls import call
from openai import AuthenticationError, OpenAI, PermissionDeniedError
from server import Server, running

from octavo.serving.groups import Group, group_of_method, group_of_route
from octavo.serving.grpc.handlers import SERVICE
from octavo.serving.http.app import http_routes
from octavo.serving.http.page.routes import page_routes
from octavo.serving.metrics import metrics_app

SERVICES = [
    SERVICE,
    health_pb2.DESCRIPTOR.services_by_name["Health"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
]
METHODS = [f"/{service.full_name}/{method.name}" for service in SERVICES for method in service.methods]
UNKNOWN_METHODS = ["/inference.GRPCInferenceService/Nope", "/nope.Nope/Nope", "/inference.grpcinferenceservice/ModelInfer", "/"]
ROUTES = sorted({route.path for route in [*http_routes(None, None, None, 0, 0), *page_routes(None), *metrics_app(None).routes]})
PARAMETERS = {"model": "tiny", "version": "1", "repository": "r", "action": "load", "rest": ""}
UNKNOWN_PATHS = ["/", "/v1", "/v1/nope", "/docs", "/v2/", "//v2", "/v2/health", "/v2/models/tiny/versions/1/nope", "/v2/../metrics"]
TOKENS = "inference: infers\nmetrics: scrapes\nmodel-repository,model-config: manages\nall: everything\n"
OPEN = {Group.HEALTH, Group.PAGE}
OPENS = {
    "": OPEN,
    "wrong": OPEN,
    "infers": OPEN | {Group.INFERENCE},
    "scrapes": OPEN | {Group.METRICS},
    "manages": OPEN | {Group.MODEL_REPOSITORY, Group.MODEL_CONFIG},
    "everything": set(Group),
}
ORIGIN = "https://chat.example.com"
Code = grpc.StatusCode


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_in_a_group(method: str) -> None:
    assert group_of_method(method) in Group


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_is_in_a_group(route: str) -> None:
    assert group_of_route(route) in Group


@pytest.fixture(scope="module")
def guarded(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "tokens").write_text(TOKENS)
    flags = ["--model-control-mode=explicit", "--load-model=tiny", f"--auth-token-file={folder / 'tokens'}"]
    flags.append(f"--http-cors-origin={ORIGIN}")
    with running(repository, *flags, log=folder / "log") as server:
        yield server
    log = server.log.read_text()
    assert "Internal error" not in log
    assert not any(token in log for token in ("infers", "scrapes", "manages", "everything"))


def grpc_code(server: Server, method: str, metadata: list[tuple[str, str]]) -> Code:
    """How a call of ``method`` with an empty message goes until its first answer."""
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.stream_stream(method)(iter([b""]), metadata=metadata, timeout=30)
        try:
            next(call, None)
        except grpc.RpcError as error:
            return error.code()
        call.cancel()
        return Code.OK


def http_status(server: Server, path: str, headers: dict[str, str], method: str = "GET") -> int:
    address = server.metrics if path == "/metrics" else server.http
    data = b"" if method == "POST" else None
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://{address}{path}", data, headers), timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        assert (error.headers["WWW-Authenticate"] == "Bearer") is (error.code == 401)
        return error.code


@pytest.mark.parametrize("token", OPENS)
def test_a_method_is_open_to_whom_its_group_is(guarded: Server, token: str) -> None:
    metadata = [("authorization", f"Bearer {token}")] if token else []
    refused = Code.PERMISSION_DENIED if token in TOKENS.split() else Code.UNAUTHENTICATED
    for method in METHODS:
        code = grpc_code(guarded, method, metadata)
        if group_of_method(method) in OPENS[token]:
            assert code not in {Code.UNAUTHENTICATED, Code.PERMISSION_DENIED}, method
        else:
            assert code is refused, method


@pytest.mark.parametrize("token", OPENS)
def test_a_route_is_open_to_whom_its_group_is(guarded: Server, token: str) -> None:
    headers = {"Accept": "text/html"} | ({"X-API-Key": token} if token else {})
    refused = 403 if token in TOKENS.split() else 401
    for route in ROUTES:
        path = re.sub(r"{(\w+)[^}]*}", lambda found: PARAMETERS[found[1]], route)
        for method in ("GET", "POST"):
            status = http_status(guarded, path, headers, method)
            if group_of_route(route) in OPENS[token]:
                assert status not in {401, 403}, (method, path)
            else:
                assert status == refused, (method, path)


@pytest.mark.parametrize("token", ["", "infers", "everything"])
def test_what_is_unknown_is_open_to_nobody(guarded: Server, token: str) -> None:
    metadata, headers = ([("authorization", f"Bearer {token}")], {"Authorization": f"Bearer {token}"}) if token else ([], {})
    for method in UNKNOWN_METHODS:
        assert grpc_code(guarded, method, metadata) in {Code.PERMISSION_DENIED if token else Code.UNAUTHENTICATED}, method
    for path in UNKNOWN_PATHS:
        assert http_status(guarded, path, headers) == (403 if token else 401), path


def test_a_health_probe_needs_nothing_and_learns_no_more_than_up_or_down(guarded: Server) -> None:
    assert guarded.get("/v2/health/ready") == (200, '{"ready":true}')
    with grpc.insecure_channel(guarded.grpc) as channel:
        answer = channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=30)
    assert health_pb2.HealthCheckResponse.FromString(answer) == health_pb2.HealthCheckResponse(status=1)


def test_keys_of_openais_clients_are_tokens(guarded: Server) -> None:
    def client(key: str) -> OpenAI:
        return OpenAI(base_url=f"http://{guarded.http}/v1", api_key=key, max_retries=0)

    assert client("everything").models.list().object == "list"
    with pytest.raises(AuthenticationError) as unknown:
        client("wrong").models.list()
    assert (unknown.value.code, unknown.value.type) == ("invalid_api_key", "invalid_request_error")
    with pytest.raises(PermissionDeniedError) as wrong:
        client("scrapes").completions.create(model="tiny", prompt="hello")
    assert wrong.value.code == "insufficient_permissions"
    assert guarded.get("/health") == (200, "")


def test_a_browser_may_ask_from_the_origin_that_is_named(guarded: Server, restricted: Server) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    allowed = call(guarded, "OPTIONS", "/v1/chat/completions", headers={"Origin": ORIGIN, **ask})
    assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert allowed.headers["access-control-allow-headers"] == "authorization,content-type"
    other = call(guarded, "OPTIONS", "/v1/chat/completions", headers={"Origin": "https://other.example.com", **ask})
    assert (other.status, other.headers.get("access-control-allow-origin")) == (400, None)
    refused = call(guarded, "GET", "/v1/models", headers={"Origin": ORIGIN})
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)
    assert "x-request-id" in refused.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in call(restricted, "GET", "/v1/models", headers={"Origin": ORIGIN}).headers
    for origin, status in ((ORIGIN, 401), ("https://other.example.com", 403)):
        assert call(guarded, "POST", "/v1/completions", b"{}", {"Origin": origin}).status == status


@pytest.fixture(scope="module")
def restricted(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ["--grpc-restricted-protocol=model-repository,health:admin-key=secret", "--http-restricted-api=health:http-key=v"]
    flags.append("--no-http-page")
    with running(repository, "--model-control-mode=explicit", *flags, log=tmp_path_factory.mktemp("log") / "log") as server:
        yield server


def test_restricted_protocols_answer_as_tritons(restricted: Server) -> None:
    header = "triton-grpc-protocol-admin-key"
    for method in ("/inference.GRPCInferenceService/ServerLive", "/grpc.health.v1.Health/Check"):
        with grpc.insecure_channel(restricted.grpc) as channel:
            for metadata in ([], [(header, "wrong")], [("admin-key", "secret")]):
                with pytest.raises(grpc.RpcError) as caught:
                    channel.unary_unary(method)(b"", metadata=metadata, timeout=30)
                assert caught.value.code() is Code.UNAVAILABLE
                assert caught.value.details() == f"This protocol is restricted, expecting header '{header}'"
            channel.unary_unary(method)(b"", metadata=[(header, "secret")], timeout=30)
    assert grpc_code(restricted, "/inference.GRPCInferenceService/ServerMetadata", []) is Code.OK


def test_restricted_apis_answer_as_tritons(restricted: Server) -> None:
    text = '{"error":"This API is restricted, expecting header \'http-key\'"}'
    assert restricted.get("/v2/health/live") == (403, text)
    assert http_status(restricted, "/v2/health/live", {"HTTP-Key": "v"}) == 200
    assert http_status(restricted, "/v2", {}) == 200


def test_the_page_is_for_browsers_and_can_be_left_out(guarded: Server, restricted: Server) -> None:
    browser = {"Accept": "text/html"}
    assert call(guarded, "GET", "/", headers=browser).headers["content-type"] == "text/html; charset=utf-8"
    assert call(guarded, "GET", "/page/live", headers={"X-API-Key": "infers"}).status == 403
    assert call(restricted, "GET", "/", headers=browser).refusal == (404, "Not Found")
    assert call(restricted, "GET", "/page/live").refusal == (404, "Not Found")


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--grpc-restricted-protocol=model-reposit:k=v", "unknown restricted protocol 'model-reposit'"),
        ("--auth-token-file=/no/such/file", "The token file cannot be read"),
        ("--auth-open-groups=everything", "There is no group 'everything'"),
    ],
)
def test_a_rule_that_cannot_be_read_stops_the_start(repository: Path, tmp_path: Path, flag: str, text: str) -> None:
    server = Server(repository, flag, log=tmp_path / "log")
    assert server.process.wait(timeout=60) == 1
    assert text in server.log.read_text()
    server.stop()
