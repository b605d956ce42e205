"""``/debug``: for one group alone, while parts of the server hang, and without a word of what is asked and answered."""

import json
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from calls import infer_request
from server import Server, running
from tritonclient.grpc import service_pb2_grpc

from octavo.serving.debug import Debug
from octavo.serving.groups import Group, group_of_route
from octavo.serving.options import BadFlag, ServeOptions
from octavo.serving.security import read_security

PROMPT, ID = "a secret of mine", "request of mine"
TOKENS = "debug: operates\ninference: infers\n"


@pytest.fixture(scope="module")
def debugged(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("debugged")
    (folder / "tokens").write_text(TOKENS)
    flags = ("--debug-page", f"--auth-token-file={folder / 'tokens'}", "--front-ends=2")
    loads = ("--model-control-mode=explicit", "--load-model=tiny")
    with running(repository, *flags, *loads, log=folder / "log") as server:
        yield server


def ask(server: Server, path: str, token: str = "operates") -> tuple[int, str]:
    request = urllib.request.Request(f"http://{server.metrics}{path}", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def state(server: Server) -> dict[str, Any]:
    return json.loads(ask(server, "/debug")[1])


@pytest.fixture
def stuck(debugged: Server) -> Iterator[Server]:
    """The engine is stopped, and a request waits for it."""
    (engine,) = debugged.processes("engine")
    engine.suspend()

    def infer() -> None:
        with grpc.insecure_channel(debugged.grpc) as channel:
            message = infer_request(PROMPT, stream=False, max_tokens=5, request_id=ID)
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message, metadata=(("authorization", "Bearer infers"),))

    client = threading.Thread(target=infer)
    client.start()
    yield debugged
    engine.resume()
    client.join()


@pytest.mark.parametrize("path", ["/debug", "/debug/stacks"])
def test_it_is_for_its_group_alone(debugged: Server, path: str) -> None:
    assert [ask(debugged, path, token)[0] for token in ("", "wrong", "infers", "operates")] == [401, 401, 403, 200]


def test_it_is_not_there_unless_it_is_asked_for(server: Server) -> None:
    assert ask(server, "/debug")[0] == 404


def test_every_page_of_it_is_in_the_group() -> None:
    routes = Debug(None, None, None, "").routes
    assert {group_of_route(route.path) for route in routes} == {Group.DEBUG}


@pytest.mark.parametrize("open_groups", ["health", "health,debug"])
def test_nobody_starts_it_for_everybody(repository: Path, tmp_path: Path, open_groups: str) -> None:
    (tmp_path / "tokens").write_text(TOKENS)
    tokens = tmp_path / "tokens" if "debug" in open_groups else None
    options = ServeOptions(model_repository=(repository,), debug_page=True, auth_token_file=tokens, auth_open_groups=open_groups)
    with pytest.raises(BadFlag, match="--debug-page needs --auth-token-file"):
        read_security(options)


def test_a_request_on_an_engine_that_hangs_is_seen_with_its_age(stuck: Server) -> None:
    stuck.wait_until(lambda: state(stuck)["open_requests"] == 1, "the request to be open")
    text = ask(stuck, "/debug")[1]
    found = json.loads(text)
    ((holder, request),) = ((one["process"], one["request"]) for one in found["requests"])
    assert holder.startswith("front-end-")
    assert (request["id"], request["model"], request["tokens"], request["queue_s"]) == (ID, "tiny", 0, None)
    assert request["prompt_tokens"] == len(PROMPT) and request["age_s"] > 0
    processes = {process["name"]: process for process in found["processes"]}
    assert processes.keys() == {"supervisor", "front-end-0", "front-end-1", "engine-1"}
    assert processes["engine-1"]["silent_s"] > 0 and processes["engine-1"]["model"] == "tiny 1"
    assert processes["engine-1"]["pid"] == stuck.processes("engine")[0].pid
    assert {"name": "tiny", "version": 1, "state": "READY", "reason": ""} in found["models"]
    assert found["versions"].keys() >= {"octavo", "python", "torch", "grpcio", "llguidance"}
    assert PROMPT not in text


def test_stacks_are_of_every_process_that_runs(stuck: Server) -> None:
    text = ask(stuck, "/debug/stacks")[1]
    parts = dict(part.split(" ", 1) for part in text.removeprefix("== ").split("\n== "))
    assert parts.keys() == {"supervisor", "front-end-0", "front-end-1", "engine-1"}
    assert "does not answer: it is stopped" in parts["engine-1"]
    for name, code in (("supervisor", "supervisor.py"), ("front-end-0", "frontend.py"), ("front-end-1", "frontend.py")):
        assert "(most recent call first)" in parts[name] and code in parts[name]
        assert "\ntask Task-" in parts[name]
    assert "FrontEnd._listen" in parts["front-end-0"]
    assert PROMPT not in text


def test_a_front_end_that_hangs_is_seen(debugged: Server) -> None:
    hanging = debugged.processes("frontend")[0]
    hanging.suspend()
    try:
        debugged.wait_until(
            lambda: any(one["pid"] == hanging.pid and one["silent_s"] > 0 for one in state(debugged)["processes"]),
            "it to owe an answer",
        )
    finally:
        hanging.resume()


def test_an_engine_that_runs_says_where_it_stands(debugged: Server) -> None:
    engine = ask(debugged, "/debug/stacks")[1].split("== engine-1")[1]
    assert 'core.py", line' in engine and "in run" in engine


def test_a_front_end_that_died_is_counted(debugged: Server) -> None:
    debugged.processes("frontend")[0].send_signal(signal.SIGKILL)

    def restarted() -> bool:
        views = [one for one in state(debugged)["processes"] if one["name"].startswith("front-end-")]
        return len(views) == 2 and all(view["restarts"] == 1 for view in views)

    debugged.wait_until(restarted, "another front end to run")
