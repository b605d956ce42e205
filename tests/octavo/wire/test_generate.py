"""The committed modules are what ``protos/generate.py`` makes, and its check notices when they are not."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[3] / "protos" / "generate.py"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("octavo_protos_generate", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_files_are_up_to_date(generate: ModuleType) -> None:
    generated = generate.generate()
    assert sorted(generated) == ["grpc_service_pb2.py", "grpc_service_pb2.pyi", "model_config_pb2.py", "model_config_pb2.pyi"]
    assert generate.report_drift(generated) == 0


def test_drift_is_reported(generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(generate, "WIRE", tmp_path)
    (tmp_path / "a_pb2.py").write_text("old\n")
    assert generate.report_drift({"a_pb2.py": "new\n"}) == 1
    assert "run `python protos/generate.py`" in capsys.readouterr().err


def test_code_for_another_protobuf_is_refused(generate: ModuleType) -> None:
    with pytest.raises(SystemExit, match="protobuf 6"):
        generate.rewrite_module("a_pb2.py", "# Protobuf Python Version: 7.35.1\n")
