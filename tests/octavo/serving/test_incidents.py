"""The attacks that other servers fell to, tried on a running one. ``docs/security.md`` names the test of each."""

import json
import os
import pickle
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import zmq
from calls import Stream, infer_request, is_final
from http_calls import generate_body, post
from server import Server
from tiny import write_model
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

Code = grpc.StatusCode
GENERATE, CHAT, COMPLETIONS = "/v2/models/tiny/generate", "/v1/chat/completions", "/v1/completions"
HI = [{"role": "user", "content": "Hi"}]


def servants(server: Server) -> set[int]:
    """The front ends and engines. What one of them starts has its name too for a moment, but is no child of the supervisor."""
    children = psutil.Process(server.process.pid).children()
    return {process.pid for name in ("frontend", "engine") for process in server.processes(name) if process in children}


@pytest.fixture(autouse=True)
def unharmed(server: Server) -> Iterator[None]:
    """Whatever a test does: the same processes serve the next request, and no page stays taken."""
    born = servants(server)
    yield
    with Stream(server.grpc) as stream:
        assert is_final(stream.send(infer_request()).rest()[-1])
    server.wait_until_free()
    assert servants(server) == born


@pytest.fixture
def stub(server: Server) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def refused(call: Callable[..., Any], request: Any) -> tuple[Code, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=30)
    return caught.value.code(), caught.value.details()


class Bomb:
    """Leaves a file behind wherever it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return os.mkdir, (str(self._mark),)


def connections(server: Server, kind: str) -> list:
    """Of all processes of ``server``."""
    found = []
    for process in [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # some are forked for a moment
            found += process.connections(kind)
    return found


def test_1_no_socket_unpickles_and_only_three_ports_listen(server: Server, tmp_path: Path) -> None:
    listening = {c.laddr for c in connections(server, "tcp") if c.status == psutil.CONN_LISTEN}
    ports = {int(address.rsplit(":", 1)[1]) for address in (server.grpc, server.http, server.metrics)}
    assert {(address.ip.removeprefix("::ffff:"), address.port) for address in listening} == {("127.0.0.1", port) for port in ports}
    paths = {c.laddr for c in connections(server, "unix") if "octavo-" in str(c.laddr)}
    assert {Path(path).name.partition("-")[0] for path in paths} >= {"engine", "engines", "front"}
    bomb = pickle.dumps(Bomb(tmp_path / "mark"))
    context = zmq.Context()
    for path in paths:
        if Path(path).name.startswith("engine-"):
            with socket.socket(socket.AF_UNIX) as front_end:
                front_end.connect(path)
                front_end.sendall(b"".join(len(frame).to_bytes(4, sys.byteorder) + frame for frame in (b"1.1", bomb, b"")))
            continue
        sender = context.socket(zmq.DEALER)
        sender.connect(f"ipc://{path}")
        for frames in ([bomb], [bomb, bomb], [b""]):
            sender.send_multipart(frames)
    time.sleep(0.5)
    context.destroy(linger=1000)
    assert not (tmp_path / "mark").exists()


def test_2_nothing_of_a_model_is_run(server: Server, repository: Path, snapshot: Path, tmp_path: Path) -> None:
    weights, mark = tmp_path / "evil", tmp_path / "mark"
    shutil.copytree(snapshot, weights)
    code = f"import os\nos.mkdir({str(mark)!r})\n"
    for name in ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py", "__init__.py", "conftest.py"):
        (weights / name).write_text(code)
    config = json.loads((weights / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "configuration_evil.Evil", "AutoModelForCausalLM": "modeling_evil.Evil"}
    (weights / "config.json").write_text(json.dumps(config))
    (weights / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["tokenization_evil.Evil", None]}}))
    (weights / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    write_model(repository, "evil", weights)
    (repository / "evil" / "1" / "model.py").write_text(code)
    client = server.client()
    client.load_model("evil")
    client.unload_model("evil")
    server.wait_until(lambda: len(server.processes("engine")) == 1, "the engine to go")
    client.close()
    shutil.rmtree(repository / "evil")
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    ["..", "../tiny", "../../etc", "/etc", "tiny/../tiny", "tiny/1", "./tiny", "tiny\0", "~", "%2e%2e", "..\\tiny", "", ".", "file:///etc"],
)  # fmt: skip
def test_2_no_name_leads_out_of_the_repository(stub: service_pb2_grpc.GRPCInferenceServiceStub, name: str) -> None:
    _, text = refused(stub.RepositoryModelLoad, pb.RepositoryModelLoadRequest(model_name=name))
    assert "failed to load" in text or "failed to poll" in text or "load failed" in text, text
    request = pb.RepositoryModelLoadRequest(model_name="tiny")
    request.parameters["file:1/../../x"].bytes_param = b"x"
    request.parameters["config"].string_param = "{}"
    assert refused(stub.RepositoryModelLoad, request)[0] is Code.UNIMPLEMENTED


TEMPLATE = "{{ ''.__class__.__mro__[1].__subclasses__() }}{% for i in range(10**9) %}x{% endfor %}"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (GENERATE, {"messages": HI, "chat_template": TEMPLATE}, 400),
        (CHAT, {"model": "tiny", "messages": HI, "chat_template": TEMPLATE}, 400),
        (CHAT, {"model": "tiny", "messages": HI, "chat_template_kwargs": {"messages": TEMPLATE}}, 400),
        # Of a variable that the model's own template does not ask for nothing is seen.
        (CHAT, {"model": "tiny", "messages": HI, "max_tokens": 1, "chat_template_kwargs": {"chat_template": TEMPLATE}}, 200),
    ],
)
def test_3_a_request_brings_no_template(server: Server, path: str, body: dict[str, Any], status: int) -> None:
    began = time.monotonic()
    reply = post(server, path, body)
    assert reply.status == status
    assert status == 400 or reply.json["usage"]["prompt_tokens"] < 50
    assert time.monotonic() - began < 10


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"pattern": "(a+)+" * 50}, nested(400), {"$ref": "#"}])
def test_4_no_schema_ends_a_process(server: Server, schema: dict[str, Any]) -> None:
    formatted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for path, body in (
        (CHAT, {"model": "tiny", "messages": HI, "max_tokens": 1, "response_format": formatted}),
        (GENERATE, generate_body(max_tokens=1, sampling_parameters={"structured_outputs": {"json": schema}})),
    ):
        assert post(server, path, body).status in {200, 400, 501}


def test_5_stop_strings_that_nearly_match_cost_no_more_than_others(server: Server) -> None:
    began = time.monotonic()
    stops = ["a" * 1023 + "b"] * 32
    reply = post(server, GENERATE, generate_body("a" * 100, max_tokens=200, stop=stops, logit_bias={"64": 100}))
    assert reply.status == 200
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("name", ["prompt_embeds", "multi_modal_data", "image"])
def test_6_a_clients_tensors_are_numbers_and_never_objects(server: Server, tmp_path: Path, name: str) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "mark")).hex()
    assert post(server, COMPLETIONS, {"model": "tiny", "prompt": "a", "max_tokens": 1, name: bomb}).status == 400
    assert post(server, GENERATE, generate_body(max_tokens=1, **{name: bomb})).status == 400
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("shape", [[2**62, 4], [2**63 - 1], [2**32, 2**32], [-1], [-(2**63)], [1] * 1000, [0, 2**63 - 1]])
def test_6_a_shape_is_multiplied_out_before_anything_is_taken(
    stub: service_pb2_grpc.GRPCInferenceServiceStub, shape: list[int]
) -> None:
    request = pb.ModelInferRequest(model_name="tiny")
    request.inputs.add(name="input_ids", datatype="INT32", shape=shape)
    request.raw_input_contents.append(b"\1\0\0\0" * 4)
    assert refused(stub.ModelInfer, request)[0] is Code.INVALID_ARGUMENT


def test_6_a_hundred_thousand_outputs_are_counted_and_no_more(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    request = infer_request(stream=False)
    for _ in range(100_000):
        request.outputs.add(name="text_output")
    text = "The request must have at most 32 requested outputs, got 100000."
    assert refused(stub.ModelInfer, request) == (Code.INVALID_ARGUMENT, text)


def test_7_there_is_no_shared_memory_and_no_text_tells_of_the_inside(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    said = []
    for kind in ("System", "Cuda"):
        for action in ("Status", "Register", "Unregister"):
            request = getattr(pb, f"{kind}SharedMemory{action}Request")()
            code, text = refused(getattr(stub, f"{kind}SharedMemory{action}"), request)
            assert code is Code.UNIMPLEMENTED
            said.append(text)
    request = infer_request(stream=False)
    request.inputs[0].parameters["shared_memory_region"].string_param = "triton_python_backend_shm_region_0"
    said.append(refused(stub.ModelInfer, request)[1])
    for damage in ("text_input", "sampling_parameters"):
        request = infer_request(stream=False)
        request.raw_input_contents[[tensor.name for tensor in request.inputs].index(damage)] = b"\xff" * 9
        said.append(refused(stub.ModelInfer, request)[1])
    said.append(refused(stub.RepositoryModelLoad, pb.RepositoryModelLoadRequest(model_name="broken_engine"))[1])
    stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="broken_engine"))  # a failed load costs readiness
    for text in said:
        assert not re.search(r"0x[0-9a-f]{4}|/tmp|/home|/usr|\.py\b|Traceback|<[a-z_.]+ object", text), text


@pytest.mark.parametrize("setting", ["log_file", "trace_file"])
def test_8_no_setting_names_a_file(
    server: Server, stub: service_pb2_grpc.GRPCInferenceServiceStub, tmp_path: Path, setting: str
) -> None:
    target = tmp_path / "written"
    if setting == "log_file":
        log = pb.LogSettingsRequest()
        log.settings[setting].string_param = str(target)
        refused(stub.LogSettings, log)
    else:
        trace = pb.TraceSettingRequest()
        trace.settings[setting].value.append(str(target))
        refused(stub.TraceSetting, trace)
    path = "/v2/logging" if setting == "log_file" else "/v2/trace/setting"
    assert post(server, path, {setting: str(target)}).status >= 400
    assert not target.exists()


def test_9_a_client_that_floods_with_pings_is_hung_up_on(server: Server) -> None:
    host, port = server.grpc.rsplit(":", 1)
    ping = b"\0\0\x08\x06\0\0\0\0\0" + b"pingping"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0" + ping * 200)
        said = b""
        while part := connection.recv(1 << 16):
            said += part
    assert b"too_many_pings" in said


def test_10_nothing_that_a_request_names_is_fetched(server: Server, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bait:
        url = f"http://127.0.0.1:{bait.getsockname()[1]}/x.png"
        for target in (url, f"file://{tmp_path}", "data:image/png;base64,AAAA"):
            for part in ("image_url", "video_url", "audio_url"):
                content = [{"type": "text", "text": "Look"}, {"type": part, part: {"url": target}}]
                messages = [{"role": "user", "content": content}]
                assert post(server, CHAT, {"model": "tiny", "messages": messages, "max_tokens": 1}).status in {400, 501}
                assert post(server, GENERATE, {"messages": messages, "max_tokens": 1}).status in {400, 501}
        bait.settimeout(0.2)
        with pytest.raises(TimeoutError):
            bait.accept()
