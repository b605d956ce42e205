"""A model's fingerprint differs when its files do."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from octavo.repository.fingerprint import fingerprint


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text("")
    (folder / "1" / "model.json").write_text("{}")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "big").write_text("w")
    (folder / "1" / "weights").symlink_to(tmp_path / "weights")
    (folder / "1" / "circle").symlink_to(folder)
    return folder


@pytest.mark.parametrize(
    "change",
    [
        lambda model: (model / "config.pbtxt").write_text(" "),
        lambda model: os.utime(model / "1" / "model.json", ns=(1, 1)),
        lambda model: (model / "1" / "model.json").unlink(),
        lambda model: (model / "2").mkdir() or (model / "2" / "model.json").write_text("{}"),
        lambda model: (model.parent / "weights" / "more").write_text("w"),
    ],
)
def test_it_differs(model: Path, change: Callable[[Path], object]) -> None:
    before = fingerprint(model)
    assert fingerprint(model) == before
    change(model)
    assert fingerprint(model) != before


def test_a_file_has_one_and_what_is_not_there_has_none(model: Path) -> None:
    assert fingerprint(model / "config.pbtxt")
    assert fingerprint(model / "nope") == frozenset()
