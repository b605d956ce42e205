"""Scripts as people write them: no main guard, no clean-up. Each ends without a process, a folder or a word left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ENGINE = "octavo.engine.process"
LOAD = """
from octavo import LLM, SamplingParams
llm = LLM({model!r}, dtype="float32", device="cpu")
print("loaded", flush=True)
input()
"""
ENDLESS = 'llm.generate(["x"] * 8, SamplingParams(max_tokens=2000, ignore_eos=True), use_tqdm=False)\n'
TWO = "SamplingParams(max_tokens=2, ignore_eos=True)"
SHORT = f'print(len(llm.generate("x", {TWO}, use_tqdm=False)[0].outputs[0].token_ids), flush=True)\n'


class Script:
    """A running script, its output, and the engines that it has started."""

    def __init__(self, code: str, folder: Path) -> None:
        file = folder / "script.py"
        file.write_text(code)
        self.sockets = folder / "tmp"
        self.sockets.mkdir()
        environment = os.environ | {"TMPDIR": str(self.sockets)}
        command = [sys.executable, "-X", "dev", "-W", "error", str(file)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
            start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (whoever runs the tests may ignore it)
        )  # fmt: skip
        self.engines: list[psutil.Process] = []

    def line(self) -> str:
        """The next line of output."""
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        """What ``input`` waits for."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def find_engine(self) -> psutil.Process:
        """The one engine that runs."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for child in psutil.Process(self.process.pid).children():
                if ENGINE in child.cmdline():
                    self.engines.append(child)
                    return child
            time.sleep(0.01)
        raise AssertionError("no engine was started")

    def end(self) -> tuple[int, str, str]:
        """Exit code, output and errors, once it and all its engines have ended."""
        out, err = self.process.communicate(timeout=120)
        assert psutil.wait_procs(self.engines, timeout=60)[1] == []
        return self.process.returncode, out, err


@pytest.fixture
def start(snapshot: Path, tmp_path: Path) -> Iterator[Callable[[str], Script]]:
    scripts: list[Script] = []

    def run(code: str) -> Script:
        scripts.append(Script(code.replace("{model!r}", repr(str(snapshot))), tmp_path))
        return scripts[-1]

    yield run
    for script in scripts:
        script.process.kill()
        script.process.wait()


def loaded(script: Script) -> Script:
    assert script.line() == "loaded", script.process.stderr.read()
    script.find_engine()
    script.go_on()
    return script


def test_a_script_without_a_main_guard_ends_without_a_trace(start: Callable) -> None:
    script = loaded(start(LOAD + SHORT))
    assert script.end() == (0, "2\n", "")
    assert list(script.sockets.iterdir()) == []


@pytest.mark.long
def test_an_exception_ends_it_too(start: Callable) -> None:
    script = loaded(start(LOAD + 'raise RuntimeError("mine")\n'))
    code, _, err = script.end()
    assert (code, err.splitlines()[-1]) == (1, "RuntimeError: mine")
    assert err.count("Traceback") == 1


def test_deleting_the_object_ends_the_engine(start: Callable) -> None:
    script = loaded(start(LOAD + 'del llm\nprint("deleted", flush=True)\ninput()\n'))
    assert script.line() == "deleted"
    assert psutil.wait_procs(script.engines, timeout=60)[1] == []


def test_an_interrupt_ends_the_call_and_the_next_one_is_answered(start: Callable) -> None:
    script = loaded(
        start(LOAD + "try:\n    " + ENDLESS + 'except KeyboardInterrupt:\n    print("interrupted", flush=True)\n' + SHORT)
    )
    time.sleep(0.3)
    script.process.send_signal(signal.SIGINT)
    assert script.end() == (0, "interrupted\n2\n", "")


def test_an_interrupt_that_nobody_catches(start: Callable) -> None:
    script = loaded(start(LOAD + ENDLESS))
    time.sleep(0.3)
    script.process.send_signal(signal.SIGINT)
    code, _, err = script.end()
    assert (code, err.splitlines()[-1]) == (-signal.SIGINT, "KeyboardInterrupt")
    assert err.count("Traceback") == 1


def test_an_interrupt_while_it_loads(start: Callable) -> None:
    script = start(LOAD)
    script.find_engine()
    script.process.send_signal(signal.SIGINT)
    code, out, err = script.end()
    assert (code, out, err.splitlines()[-1]) == (-signal.SIGINT, "", "KeyboardInterrupt")
    assert list(script.sockets.iterdir()) == []


@pytest.mark.long
def test_a_killed_script_leaves_no_engine(start: Callable) -> None:
    script = loaded(start(LOAD + ENDLESS))
    script.process.kill()
    assert psutil.wait_procs(script.engines, timeout=60)[1] == []


def test_a_killed_engine_is_an_error_and_no_wait(start: Callable) -> None:
    catch = "try:\n    {}except Exception as error:\n    print(type(error).__name__, error, flush=True)\n"
    script = loaded(start(LOAD + catch.format(ENDLESS) + catch.format(SHORT)))
    script.engines[0].kill()
    says = "EngineDead The engine of model 'tiny' has died. Its process was killed by signal SIGKILL.\n"
    assert script.end() == (0, says * 2, "")


@pytest.mark.long
def test_a_forked_child_leaves_its_parents_engine_alone(start: Callable) -> None:
    script = loaded(start("import os, sys\n" + LOAD + "if os.fork() == 0:\n    sys.exit(0)\nos.wait()\n" + SHORT))
    code, out, _ = script.end()
    assert (code, out) == (0, "2\n")
