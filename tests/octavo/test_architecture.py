"""The house rules that a reader relies on: imports go down only, and the light processes stay light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import octavo

ROOT = Path(octavo.__file__).parent
FLOORS = ["cli", "bench", "check", "deploy", "offline", "serving", "protocol", "grammar", "text"]
FLOORS += ["repository", "engine", "runtime", "models", "octavo_kernels"]
GROUND = {"errors", "config", "logs", "sampling", "structured_outputs", "wire"}
# The one place where the engine meets the device: the entry of its process, which loads the runner when it starts.
ENGINE_MEETS_DEVICE = "engine/process.py"


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        for name in names:
            parts = name.split(".")
            if parts[0] == "octavo" and len(parts) > 1:
                rooms.add(parts[1])
            elif parts[0] == "octavo_kernels":
                rooms.add("octavo_kernels")
    return rooms


SOURCES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


@pytest.mark.parametrize("source", [s for s in SOURCES if "/" in s and s.split("/")[0] not in GROUND])
def test_imports_go_down_only(source: str) -> None:
    room = source.split("/", maxsplit=1)[0]
    below = set(FLOORS[FLOORS.index(room) :]) | GROUND
    # A device step is described once, on the engine's floor; the runner and the sampler read that description.
    if room in {"runtime", "models"}:
        below.add("engine")
    assert imported_rooms(ROOT / source) <= below


@pytest.mark.parametrize("source", [s for s in SOURCES if s.split("/")[0].removesuffix(".py") in GROUND])
def test_the_ground_knows_no_room(source: str) -> None:
    assert imported_rooms(ROOT / source) <= GROUND


def test_only_the_engine_entry_meets_the_device() -> None:
    engine = [s for s in SOURCES if s.startswith("engine/") and s != ENGINE_MEETS_DEVICE]
    assert all(not imported_rooms(ROOT / s) & {"runtime", "models", "octavo_kernels"} for s in engine)


@pytest.mark.parametrize(
    "module",
    [
        "octavo.grammar.process",
        "octavo.text.template_process",
        "octavo.serving.frontend",
        "octavo.serving.supervisor",
        "octavo.cli",
        "octavo.offline.llm",
        "octavo.engine.scheduler",
    ],
)
def test_light_processes_import_neither_torch_nor_transformers(module: str) -> None:
    heavy = {"torch", "transformers", "triton"}
    code = f"import sys, {module}; sys.exit(', '.join({heavy} & set(sys.modules)) or None)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_package_itself_imports_nothing_of_ours() -> None:
    code = "import sys, octavo; sys.exit(', '.join(name for name in sys.modules if name.startswith('octavo.')) or None)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert {name for name in octavo.__all__ if getattr(octavo, name).__name__ != name} == set()


def test_nothing_is_pickled() -> None:
    banned = ("import pickle", "pickle.loads", "torch.load(", "recv_pyobj", "send_pyobj", "trust_remote_code=True")
    for source in SOURCES:
        text = (ROOT / source).read_text()
        assert not [word for word in banned if word in text], source


def test_services_know_no_transport() -> None:
    for source in (s for s in SOURCES if s.startswith("serving/services/")):
        text = (ROOT / source).read_text()
        assert not [line for line in text.splitlines() if "serving.grpc" in line or "serving.http" in line], source


def test_http_2_knows_nothing_of_what_it_carries() -> None:
    for source in (s for s in SOURCES if s.startswith("serving/http2/")):
        ours = re.findall(r"^\s*(?:from|import) (octavo\S*)", (ROOT / source).read_text(), re.MULTILINE)
        assert not [name for name in ours if not name.startswith("octavo.serving.http2")], source
