"""How many cores an engine takes."""

import os
from pathlib import Path

import pytest

from octavo.engine import cores as module
from octavo.engine.cores import usable_cores


@pytest.mark.parametrize(
    ("limit", "cores"), [("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1), ("9900000 100000", 8), ("", 8)]
)
def test_a_containers_limit_bounds_the_cores(limit: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text(limit)
    monkeypatch.setattr(module, "CGROUP_LIMIT", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert usable_cores() == cores
