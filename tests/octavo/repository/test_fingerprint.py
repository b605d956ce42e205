"""A model's fingerprint differs when its files do."""

import errno
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
    with pytest.raises(FileNotFoundError):
        fingerprint(model / "nope")


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
def test_a_file_system_that_fails_does_not_look_like_a_change(model: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    fail_below(model / "1", monkeypatch, code)
    with pytest.raises(OSError, match=os.strerror(code)):
        fingerprint(model)


def test_a_file_that_goes_meanwhile_hides_no_other(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: size for name, size, _ in fingerprint(model)}
    for name in ("a", "z"):
        (model / "1" / name).symlink_to("gone")
    assert {name: size for name, size, _ in fingerprint(model)} == before
    fail_below(model / "1" / "model.json", monkeypatch, errno.ENOENT)
    assert {name for name, _, _ in fingerprint(model)} == before.keys() - {str(model / "1" / "model.json")}


def fail_below(path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Have the system's calls fail for what lies at ``path``."""
    for name in ("stat", "scandir"):
        call = getattr(os, name)

        def failing(asked: object, *args: object, call: Callable[..., object] = call, **more: object) -> object:
            if isinstance(asked, str | Path) and Path(asked).is_relative_to(path):
                raise OSError(code, os.strerror(code))
            return call(asked, *args, **more)

        monkeypatch.setattr(os, name, failing)
