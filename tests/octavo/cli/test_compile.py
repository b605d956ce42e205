"""``octavo compile``: kernels of models without weights, for a GPU that is not here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from octavo.cli import app
from octavo.runtime.ahead import CACHE_VARIABLE, SHIPPED_VARIABLE

CONFIG = {
    "model_type": "llama", "vocab_size": 512, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 256, "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    snapshot, folder = tmp_path / "snapshot", tmp_path / "repository"
    snapshot.mkdir()
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    (folder / "m" / "1").mkdir(parents=True)
    settings = {"model": str(snapshot), "load_format": "dummy", "max_num_seqs": 2, "max_num_batched_tokens": 64}
    (folder / "m" / "1" / "model.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("capability", ["9", "9.x", "hopper"])
def test_what_is_no_capability_is_refused(repository: Path, capability: str) -> None:
    result = CliRunner().invoke(app, ["compile", "--model-repository", str(repository), "--capability", capability])
    assert result.exit_code == 2 and "must be like 9.0" in result.stderr


def test_a_model_that_cannot_be_loaded_is_told(repository: Path) -> None:
    (repository.parent / "snapshot" / "config.json").write_text("{}")
    pytest.importorskip("triton.backends.nvidia")
    result = CliRunner().invoke(app, ["compile", "--model-repository", str(repository), "--capability", "9.0"])
    assert result.exit_code == 1 and "Error: The model type 'None' is not supported" in result.stderr


@pytest.mark.long
def test_what_was_compiled_is_there_for_every_start(repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("triton.backends.nvidia")

    def compiled(**variables: Path) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        environment |= {"PYTHONPATH": ":".join(path for path in sys.path if path)}
        environment |= {name: str(folder) for name, folder in variables.items()}
        words = [sys.executable, "-m", "octavo", "compile", "--capability=9.0", "--model-repository", str(repository)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stderr

    image, cache = tmp_path / "image", tmp_path / "cache"
    for folder in (image, cache):
        folder.mkdir()
    assert " kernels in " in compiled(**{CACHE_VARIABLE: image})
    assert not compiled(**{CACHE_VARIABLE: image})  # all is there
    assert "Compiled 0 kernels in " in compiled(**{CACHE_VARIABLE: cache, SHIPPED_VARIABLE: image})
