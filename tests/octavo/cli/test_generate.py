"""``octavo generate`` and ``octavo chat``: plain text into a pipe, a conversation in a terminal, and errors without a trace."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "serving"))

from tiny import write_snapshot
from typer.testing import CliRunner

from octavo.cli import app
from octavo.offline.terminal import Terminal
from octavo.text.request import GenerateChunk, SampleDelta

OCTAVO = [sys.executable, "-m", "octavo"]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "tiny"
    write_snapshot(folder)
    return folder


def octavo(*words: str, said: str = "") -> subprocess.CompletedProcess:
    return subprocess.run([*OCTAVO, *words], input=said, capture_output=True, text=True, timeout=120, check=False)


def test_a_pipe_gets_the_text_and_nothing_else(snapshot: Path) -> None:
    done = octavo("generate", "-", f"--model={snapshot}", "--max-tokens=3", "--temperature=0", said="Some words")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Some words")
    assert len("Some words\n") < len(done.stdout) <= len("Some words\n") + 3


def test_messages_that_are_piped_in_are_answered(snapshot: Path) -> None:
    said = "Hello\nHello\n/clear\nHello\nHello\n"
    done = octavo("chat", f"--model={snapshot}", "--max-tokens=24", "--temperature=0", "--system=Be brief.", said=said)
    assert (done.returncode, done.stderr) == (0, "")
    middle = len(done.stdout) // 2
    assert done.stdout[:middle] == done.stdout[middle:]
    assert done.stdout[: middle // 2] != done.stdout[middle // 2 : middle]


class Pty:
    """A process that believes to be in a terminal."""

    def __init__(self, *words: str) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execvp(OCTAVO[0], [*OCTAVO, *words])
        self._unread = ""

    def until(self, text: str) -> None:
        """Read up to ``text``, which has to be shown."""
        deadline = time.monotonic() + 120
        while text not in self._unread:
            ready = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, self._unread[-500:]
            self._unread += os.read(self._fd, 4096).decode(errors="replace")
        self._unread = self._unread.partition(text)[2]

    def more(self, characters: int) -> None:
        """Wait until so many more have been shown."""
        while len(self._unread) < characters:
            self._unread += os.read(self._fd, 4096).decode(errors="replace")

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def end(self) -> int:
        try:
            while os.read(self._fd, 4096):
                pass
        except OSError:  # how Linux says that the other end is closed
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_control_c_stops_an_answer_and_not_the_conversation(snapshot: Path) -> None:
    talk = Pty("chat", f"--model={snapshot}", "--temperature=0")
    talk.until("> ")
    talk.type("Hello\n")
    talk.until("Hello")
    talk.more(200)
    talk.type("\x03")
    talk.until("tokens/s")
    talk.until("> ")
    talk.type("\x04")
    assert talk.end() == 0


def test_a_model_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def answer() -> Iterator[GenerateChunk]:
        yield GenerateChunk([SampleDelta("a\x1b[2J\x9b1mb\n\tc", [1])], final=True, prompt_token_ids=[[1]])

    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert Terminal().show(answer()).text == "a\x1b[2J\x9b1mb\n\tc"
    assert "a\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}1mb\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["generate", "x", "--model=./missing"], 1, "Error: './missing' in octavo generate of model './missing' does not exist"),
        (["chat", "--model=x", '--settings={"tensor_parallel_size": 2}'], 1, "Error: octavo chat sets 'tensor_parallel_size'"),
        (["generate", "x", '--settings={"dtype": "float32"}'], 2, "needs --model"),
        (["generate", "x", "--settings=[]"], 2, "must be a JSON object"),
        (["generate", "x", "--top-p=7"], 2, "top_p must be greater than"),
        (["chat"], 2, "there is none in ./model_repository"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.stdout) == (code, "")
    assert says in " ".join(done.stderr.replace("│", " ").split())
