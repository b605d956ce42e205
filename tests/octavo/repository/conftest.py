"""A model repository to fill, in a temporary folder."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

AddModel = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty repository."""
    path = tmp_path / "models"
    path.mkdir()
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file that looks like weights; nothing in this family reads it."""
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"GGUF")
    return path


@pytest.fixture
def add_model(root: Path, weights: Path) -> AddModel:
    """``add_model("m", versions=(1,), config="", **settings)`` writes a model and returns its folder."""

    def add(name: str, versions: tuple = (1,), config: str | None = "", where: Path | None = None, **settings: object) -> Path:
        folder = (where or root) / name
        folder.mkdir(parents=True)
        if config is not None:
            (folder / "config.pbtxt").write_text(config)
        for version in versions:
            (folder / str(version)).mkdir()
            (folder / str(version) / "model.json").write_text(json.dumps({"model": str(weights), **settings}))
        return folder

    return add
