"""The README's first lines do what they say: the default repository is served, and the quick start prints an answer."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import Server, running

ROOT = Path(__file__).parents[3]
ADDRESS, HTTP, METRICS = "localhost:8001", "localhost:8000", "localhost:8002"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(ROOT / "model_repository", log=tmp_path_factory.mktemp("log") / "log") as server:
        yield server


def block(language: str, holding: str) -> str:
    """The one piece of code in ``language`` that holds something."""
    pieces = re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [piece for piece in pieces if holding in piece]
    return str(code)


@pytest.mark.parametrize("door", [ADDRESS, HTTP])
def test_a_quick_start_prints_a_sensible_answer(served: Server, door: str) -> None:
    code = block("python", door)
    assert code.count(door) == 1
    command = [sys.executable, "-c", code.replace(ADDRESS, served.grpc).replace(HTTP, served.http)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout


def test_the_quick_start_without_a_server_does_too() -> None:
    done = subprocess.run([sys.executable, "-c", block("python", "LLM(")], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The capital of France is Paris")


def test_every_curl_does_what_it_says(served: Server) -> None:
    script = block("sh", HTTP).replace(HTTP, served.http).replace(METRICS, served.metrics).replace("curl ", "curl -sSf ")
    done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    whole = [line for line in re.split(r"(?=\{\"model_name)", done.stdout) if "The capital of France is Paris" in line]
    assert len(whole) == 2
    assert "Paris" in "".join(re.findall(r'data: .*"text_output":"(.*?)"', done.stdout))
    assert '"state":"READY"' in done.stdout
    assert "nv_inference_request_success" in done.stdout
