"""``octavo bench``: each measurement prints a table and writes its figures; what the figures are is no test's business."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from octavo.cli import app


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        pytest.param("latency", ["--rounds=1", "--input-len=4", "--output-len=2"], marks=pytest.mark.long),
        ("throughput", ["--rounds=1", "--input-len=4", "--output-len=2", "--requests=2"]),
        pytest.param("serve", ["--lanes=2", "--requests=2", "--words=1", "--output-len=2"], marks=pytest.mark.long),
    ],
)
def test_a_measurement_prints_a_table_and_writes_json(command: str, flags: list[str], demo_gguf: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = CliRunner().invoke(app, ["bench", command, f"--model-repository={demo_gguf}", f"--json={file}", *flags])
    assert done.exit_code == 0, done.output
    assert "tok/s" in done.output
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert kept["benchmark"] == command
    assert all(figure["value"] > 0 for figure in kept["figures"])
