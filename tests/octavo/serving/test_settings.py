"""Settings that are read and changed while the server runs: over both transports, by every process, and only where not all may."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from calls import infer_request
from server import Server, running
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

KEY = {"triton-grpc-protocol-admin": "opensesame"}
HTTP_KEY = {"admin": "opensesame"}
QUIET = {"log_info": True, "log_warning": True, "log_error": True, "log_verbose_level": 0, "log_format": "default"}


@pytest.fixture(scope="module")
def guarded(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Three front ends, whose settings may be changed by who knows the key."""
    flags = ("--front-ends=3", "--model-control-mode=explicit", "--load-model=tiny", "--log-format=ISO8601")
    keys = ("--grpc-restricted-protocol=trace,logging:admin=opensesame", "--http-restricted-api=trace,logging:admin=opensesame")
    with running(repository, *flags, *keys, log=tmp_path_factory.mktemp("log") / "log") as server:
        yield server


@pytest.fixture
def admin(guarded: Server) -> Iterator[triton.InferenceServerClient]:
    client = guarded.client()
    yield client
    client.update_log_settings(QUIET, headers=KEY)
    client.update_trace_settings("tiny", {"trace_rate": [], "trace_count": []}, headers=KEY)
    client.update_trace_settings(settings={"trace_rate": [], "trace_count": []}, headers=KEY)
    client.close()


def log_settings(client: triton.InferenceServerClient) -> dict[str, Any]:
    settings = client.get_log_settings(headers=KEY).settings
    return {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in settings.items()}


def trace_settings(client: triton.InferenceServerClient, model: str = "") -> dict[str, list[str]]:
    settings = client.get_trace_settings(model, headers=KEY).settings
    return {name: list(value.value) for name, value in settings.items()}


def on_every_front_end(server: Server, call: Any) -> list[Any]:
    """What ``call`` says on a dozen connections, which the kernel spreads over the front ends."""
    answers = []
    for _ in range(12):
        with grpc.insecure_channel(server.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            answers.append(call(service_pb2_grpc.GRPCInferenceServiceStub(channel)))
    return answers


def test_a_log_setting_holds_in_every_process(guarded: Server, admin: triton.InferenceServerClient) -> None:
    def infer(stub: Any) -> None:
        stub.ModelInfer(infer_request(stream=False, max_tokens=1, request_id="seen?"))

    def lines() -> list[str]:
        return [line for line in guarded.log.read_text().splitlines() if "'seen?'" in line]

    on_every_front_end(guarded, infer)
    assert not lines()
    admin.update_log_settings({"log_verbose_level": 1, "log_format": "default"}, headers=KEY)
    told = on_every_front_end(guarded, lambda stub: stub.LogSettings(pb.LogSettingsRequest(), metadata=tuple(KEY.items())))
    assert {settings.settings["log_verbose_level"].uint32_param for settings in told} == {1}
    on_every_front_end(guarded, infer)
    verbose = lines()
    assert len(verbose) == 2 * 12, "how each begins and how it ends"
    assert len({line.split(": ")[0].rsplit(" ", 1)[1] for line in verbose}) > 1, "more than one front end has told of requests"
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} DEBUG front end \d: ", line) for line in verbose)
    admin.update_log_settings({"log_verbose_level": 0}, headers=KEY)
    on_every_front_end(guarded, infer)
    assert lines() == verbose


def test_every_line_of_every_process_is_one_json_object(guarded: Server, admin: triton.InferenceServerClient) -> None:
    settings = {"log_format": "json", "log_verbose_level": 1}
    admin.update_log_settings(settings, headers=KEY)
    assert log_settings(admin)["log_format"] == "json"
    before = len(guarded.log.read_text())
    admin.load_model("other")
    admin.unload_model("other")
    prompt, name = "a secret of mine", 'id "of" mine'
    on_every_front_end(guarded, lambda stub: stub.ModelInfer(infer_request(prompt, stream=False, max_tokens=1, request_id=name)))
    guarded.wait_until(lambda: "is unloaded" in guarded.log.read_text()[before:], "the unload to be told")
    text = guarded.log.read_text()[before:]
    assert prompt not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["process"].rstrip("0123456789") for line in lines} == {"supervisor", "front end ", "engine-"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in lines)
    assert {line["level"] for line in lines} == {"INFO", "DEBUG"}
    told = [line["message"] for line in lines if line.get("request_id") == name]
    assert len(told) == 2 * 12
    assert re.fullmatch(f"Request '{name}' has ended after [0-9.]+ s with {len(prompt)} prompt tokens and 1 .*: success.", told[-1])


def test_engines_and_the_supervisor_log_in_the_format_of_the_flag(guarded: Server) -> None:
    for process in ("supervisor", "engine-1"):
        (line, *_) = (line for line in guarded.log.read_text().splitlines() if f" {process}: " in line)
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO ", line), line


def test_an_engine_hears_of_log_settings(guarded: Server, admin: triton.InferenceServerClient) -> None:
    admin.update_log_settings({"log_info": False}, headers=KEY)
    before = guarded.log.read_text()
    admin.load_model("other")
    admin.update_log_settings({"log_info": True}, headers=KEY)
    admin.unload_model("other")
    guarded.wait_until(lambda: "unloaded" in guarded.log.read_text()[len(before) :], "the unload to be told")
    told = guarded.log.read_text()[len(before) :]
    assert "other version 1 is unloaded" in told
    assert "other version 1 is ready" not in told
    assert " INFO engine-" not in told


def test_log_settings_over_http(guarded: Server, admin: triton.InferenceServerClient) -> None:
    with triton_http.InferenceServerClient(guarded.http) as client:
        changed = client.update_log_settings({"log_warning": False, "log_verbose_level": 2}, headers=HTTP_KEY)
        assert changed == {**QUIET, "log_file": "", "log_warning": False, "log_verbose_level": 2}
        assert client.get_log_settings(headers=HTTP_KEY) == changed == log_settings(admin)


@pytest.mark.parametrize(
    ("settings", "status", "text"),
    [
        ({"log_info": "x"}, 400, "expect boolean for 'log_info'"),
        ({"log_verbose_level": "1"}, 400, "expect int32 for 'log_verbose_level'"),
        ({"log_format": 1}, 400, "expect string for 'log_format'"),
        ({"log_format": "nope"}, 400, "invalid argument for log_format, got: nope"),
        ({"log_info": False, "log_file": "/tmp/x"}, 501, "log file location can not be updated through network protocol"),
    ],
)
def test_a_log_setting_that_cannot_be_changes_nothing(
    guarded: Server, admin: triton.InferenceServerClient, settings: dict[str, Any], status: int, text: str
) -> None:
    assert post(guarded, "/v2/logging", settings) == (status, {"error": text})
    assert log_settings(admin) == {**QUIET, "log_file": ""}


def test_a_models_trace_settings_stand_before_the_servers(guarded: Server, admin: triton.InferenceServerClient) -> None:
    with triton_http.InferenceServerClient(guarded.http) as client:
        assert client.update_trace_settings("tiny", {"trace_rate": "5"}, headers=HTTP_KEY)["trace_rate"] == "5"
        admin.update_trace_settings(settings={"trace_rate": "7", "trace_count": "3"}, headers=KEY)
        assert trace_settings(admin)["trace_rate"] == ["7"]
        assert client.get_trace_settings("tiny", headers=HTTP_KEY) == {
            "trace_level": ["OFF"],
            "trace_mode": "triton",
            "trace_rate": "5",
            "trace_count": "3",
            "log_frequency": "0",
            "trace_file": "",
        }
        client.update_trace_settings("tiny", {"trace_rate": None}, headers=HTTP_KEY)
    assert trace_settings(admin, "tiny")["trace_rate"] == ["7"]
    admin.update_trace_settings(settings={"trace_rate": [], "trace_count": []}, headers=KEY)
    assert trace_settings(admin, "tiny") == trace_settings(admin)
    assert trace_settings(admin)["trace_rate"] == ["1000"]


@pytest.mark.parametrize(
    ("settings", "status", "text"),
    [
        ({"trace_rate": "x"}, 400, "Unable to parse 'trace_rate', got: x"),
        ({"trace_rate": ["1", "2"]}, 400, "expect only 1 value for 'trace_rate'"),
        ({"trace_count": "-2"}, 400, "Unable to parse 'trace_count'. Expecting value >= -1, got: -2"),
        ({"trace_rate": "-1"}, 400, "Unable to parse 'trace_rate', value is out of range [ 0, 4294967295 ], got: -1"),
        ({"trace_level": ["OFF", "TIMESTAMPS"]}, 400, "Expect only one trace level 'OFF' is specified"),
        ({"trace_level": ["TIMESTAMPS"]}, 400, "Attempting to set invalid trace setting :trace file name is not given"),
        ({"trace_file": "/tmp/x"}, 501, "trace file location can not be updated through network protocol"),
    ],
)
def test_a_trace_setting_that_cannot_be_changes_nothing(
    guarded: Server, admin: triton.InferenceServerClient, settings: dict[str, Any], status: int, text: str
) -> None:
    before = trace_settings(admin)
    with pytest.raises(InferenceServerException, match=re.escape(text)):
        admin.update_trace_settings(settings=settings, headers=KEY)
    assert post(guarded, "/v2/trace/setting", settings) == (status, {"error": text})
    assert trace_settings(admin) == before


def test_where_everybody_may_call_nobody_may_change(server: Server, client: triton.InferenceServerClient) -> None:
    text = "Settings can be changed only on a server whose calls of the group 'logging' need credentials"
    with pytest.raises(InferenceServerException, match=text) as caught:
        client.update_log_settings({"log_info": False})
    assert caught.value.status() == "StatusCode.PERMISSION_DENIED"
    assert post(server, "/v2/trace/setting", {"trace_rate": "1"})[0] == 403
    assert client.get_log_settings().settings["log_info"].bool_param
    assert json.loads(server.get("/v2/models/tiny/trace/setting")[1])["trace_rate"] == "1000"


def post(server: Server, path: str, body: object) -> tuple[int, Any]:
    request = urllib.request.Request(f"http://{server.http}{path}", json.dumps(body).encode(), HTTP_KEY)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
