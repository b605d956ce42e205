"""``octavo batch``: a line an answer, whatever the line is, and whatever happens to the run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "serving"))

from tiny import write_snapshot
from typer.testing import CliRunner

from octavo.cli import app

NAME = "tiny"


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("batch") / NAME
    write_snapshot(folder)
    return folder


def command(snapshot: Path, folder: Path, **settings: object) -> list[str]:
    files = [str(folder / "in.jsonl"), str(folder / "out.jsonl")]
    return [sys.executable, "-m", "octavo", "batch", *files, f"--model={snapshot}", f"--settings={json.dumps(settings)}"]


def batch(snapshot: Path, folder: Path, **settings: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(snapshot, folder, max_num_seqs=4, **settings), capture_output=True, text=True, timeout=120, check=False
    )


def line(custom_id: str, url: str = "/v1/completions", **body: object) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": NAME, **body}})


def chat(custom_id: str, **body: object) -> str:
    return line(custom_id, "/v1/chat/completions", messages=[{"role": "user", "content": "Hello"}], max_tokens=3, **body)


def answers(folder: Path) -> list[dict]:
    return [json.loads(text) for text in (folder / "out.jsonl").read_bytes().splitlines()]


def test_every_line_has_its_answer(snapshot: Path, tmp_path: Path) -> None:
    lines = [
        line("text", prompt="Hello", max_tokens=4, logprobs=1, ignore_eos=True),
        chat("chat", n=2),
        line("response", "/v1/responses", input="Hello", max_output_tokens=16),
        "",
        line("long", prompt="x" * 3000),
        chat("typo", temprature=1),
        chat("stream", stream=True),
        chat("other", model="gpt-9"),
        chat("alias", model="gpt-8"),
        line("nowhere", "/v1/embeddings", input="Hello"),
        "{",
        '{"custom_id": 7}',
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    done = batch(snapshot, tmp_path, served_model_name="gpt-8")
    assert done.returncode == 0, done.stderr
    assert "11 requests answered; 7 could not be served." in done.stderr
    by_number = {answer["id"]: answer for answer in answers(tmp_path)}
    assert sorted(by_number) == sorted(f"batch_req_{number}" for number in range(1, 13) if number != 4)
    named = {answer["custom_id"]: answer for answer in by_number.values() if answer["custom_id"]}
    assert all(answer["error"] is None for answer in named.values())
    text, chats, response = (named[name]["response"] for name in ("text", "chat", "response"))
    assert (text["status_code"], text["body"]["object"], text["body"]["usage"]["completion_tokens"]) == (200, "text_completion", 4)
    assert [choice["message"]["role"] for choice in chats["body"]["choices"]] == ["assistant"] * 2
    assert response["body"]["object"] == "response"
    assert named["alias"]["response"]["status_code"] == 200
    again = batch(snapshot, tmp_path)
    assert "11 requests answered, 11 of them before; 7 could not be served." in again.stderr
    refused = {name: named[name]["response"] for name in ("long", "typo", "stream", "other", "nowhere")}
    assert {name: answer["status_code"] for name, answer in refused.items()} == {
        "long": 400, "typo": 400, "stream": 400, "other": 404, "nowhere": 404,
    }  # fmt: skip
    assert refused["long"]["body"]["error"]["code"] == "context_length_exceeded"
    assert "Did you mean 'temperature'?" in refused["typo"]["body"]["error"]["message"]
    for number in (11, 12):
        answer = by_number[f"batch_req_{number}"]
        assert (answer["custom_id"], answer["response"], answer["error"]["code"]) == (None, None, "invalid_request")


def test_a_killed_run_is_gone_on_with(snapshot: Path, tmp_path: Path) -> None:
    wanted = [f"request-{number}" for number in range(60)]
    (tmp_path / "in.jsonl").write_text("\n".join(line(name, prompt=name, max_tokens=60, ignore_eos=True) for name in wanted) + "\n")
    out = tmp_path / "out.jsonl"
    first = subprocess.Popen(command(snapshot, tmp_path, max_num_seqs=4), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while (not out.exists() or out.read_bytes().count(b"\n") < 3) and time.monotonic() < deadline:
        time.sleep(0.01)
    first.kill()
    first.wait()
    before = out.read_bytes()
    assert 3 <= before.count(b"\n") < 60
    whole = before[: before.rindex(b"\n") + 1]
    out.write_bytes(whole + whole.splitlines()[0][:40])  # as if it had been killed while it wrote
    done = batch(snapshot, tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"60 requests answered, {whole.count(bytes([10]))} of them before; 0 could not be served." in done.stderr
    assert out.read_bytes().startswith(whole)
    assert sorted(answer["custom_id"] for answer in answers(tmp_path)) == sorted(wanted)
    finished = out.read_bytes()
    assert batch(snapshot, tmp_path).returncode == 0
    assert out.read_bytes() == finished


@pytest.mark.long
def test_an_interrupt_says_nothing_and_keeps_what_there_is(snapshot: Path, tmp_path: Path) -> None:
    names = [f"request-{number}" for number in range(60)]
    (tmp_path / "in.jsonl").write_text("\n".join(line(name, prompt=name, max_tokens=400, ignore_eos=True) for name in names))
    run = subprocess.Popen(command(snapshot, tmp_path, max_num_seqs=4), stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not ((tmp_path / "out.jsonl").exists() and answers(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(run.pid, signal.SIGINT)
    said = run.communicate(timeout=120)[1]
    assert run.returncode == 130
    assert "Traceback" not in said
    assert 0 < len(answers(tmp_path)) < 60


@pytest.mark.parametrize(
    ("given", "there", "says"),
    [
        (chat("a"), '{"some": "log"}\n', "holds something else than answers to a batch"),
        (chat("a"), '{"id": "batch_req_1", "custom_id": "b"}\n', "holds answers to other requests"),
        (chat("a"), '{"id": "batch_req_9", "custom_id": "a"}\n', "holds answers to other requests"),
        (chat("a"), '{"important": "my only copy"}', "holds something else than answers to a batch"),
        (chat("a"), '{"id": "batch_req_1", "custom_id": "a"}\nnotes', "holds something else than answers to a batch"),
        (chat("a"), '{"id": "batch_req_9", "custom_id": "a"}\n{"id":"batch_req_1","cus', "holds answers to other requests"),
        ('{"id": "batch_req_1", "custom_id": "a"}\n', chat("a"), "holds something else than answers to a batch"),
        (None, "", "'in.jsonl' cannot be opened: No such file or directory."),
    ],
)
def test_files_that_do_not_go_together(tmp_path: Path, given: str | None, there: str, says: str) -> None:
    if given is not None:
        (tmp_path / "in.jsonl").write_text(given)
    (tmp_path / "out.jsonl").write_text(there)
    done = CliRunner().invoke(app, ["batch", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")])
    assert (done.exit_code, done.stdout) == (1, "")
    assert says in done.stderr
    assert (tmp_path / "out.jsonl").read_text() == there
