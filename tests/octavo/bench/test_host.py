"""``octavo bench host``: every part of a step is timed while all requests decode."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from octavo.bench import host
from octavo.bench.host import PARTS, measure
from octavo.cli.bench import bench
from octavo.engine.scheduler import Scheduler


def test_every_step_that_counts_decodes_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    decodes: list[int] = []
    schedule = Scheduler.schedule

    def noting(scheduler: Scheduler, now: float) -> object:
        step = schedule(scheduler, now)
        decodes.append(step.num_decodes if step is not None and len(step.rows) == step.num_decodes else -1)
        return step

    monkeypatch.setattr(Scheduler, "schedule", noting)
    parts = measure(70, 80)
    assert decodes[-80:] == [70] * 80
    assert [len(parts[part]) for part in PARTS] == [80] * 3


def test_the_figures_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "GOALS", {2: "≤ 1"})
    path = tmp_path / "host.json"
    result = CliRunner().invoke(bench, ["host", "--rows", "1,2", "--steps", "5", "--json", str(path)])
    assert result.exit_code == 0, result.output
    figures = json.loads(path.read_text())["figures"]
    assert [figure["what"] for figure in figures] == [f"{count} rows: {part}" for count in (1, 2) for part in (*PARTS, "all")]
    assert all(figure["value"] > 0 and figure["unit"] == "µs" for figure in figures)
    assert [figure["goal"] for figure in figures] == ["", "", "", "", "", "", "", "≤ 1"]


@pytest.mark.parametrize("rows", ["", "0,2", "many"])
def test_other_counts_are_refused(rows: str) -> None:
    result = CliRunner().invoke(bench, ["host", "--rows", rows])
    assert result.exit_code == 2
    assert "whole numbers above 0" in " ".join(result.output.split())
