"""Engine arguments given directly: where a model may be, what it is called, and sentences that name the caller."""

from pathlib import Path

import pytest
import torch

from octavo.config import WeightsFormat
from octavo.errors import LoadFailed
from octavo.repository.direct import direct_model

CALLER = "LLM()"


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).touch()
    return folder


def test_a_folder_absolute_or_relative(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(snapshot)
    for model in (snapshot, str(snapshot), "../tiny", "."):
        config = direct_model({"model": model}, CALLER).engine
        assert (config.name, Path(config.weights).resolve(), config.weights_format) == ("tiny", snapshot, WeightsFormat.SAFETENSORS)


def test_a_file(snapshot: Path) -> None:
    file = snapshot / "Some-Model.Q4_0.gguf"
    file.touch()
    config = direct_model({"model": file, "tokenizer": snapshot}, CALLER).engine
    assert (config.name, config.weights, config.tokenizer) == ("Some-Model.Q4_0", str(file), str(snapshot))


def test_arguments_reach_the_engine(snapshot: Path) -> None:
    config = direct_model({"model": snapshot, "dtype": torch.float16, "max_num_seqs": 7, "enforce_eager": True}, CALLER).engine
    assert (config.dtype, config.max_num_seqs, config.device) == ("float16", 7, "auto")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"model": "./missing"}, r"^'./missing' in LLM\(\) of model './missing' does not exist or cannot be read\.$"),
        ({"model": "folder/missing.gguf"}, r"^The file 'missing.gguf' that LLM\(\) names does not exist or cannot be read\.$"),
        ({"model": "not an id"}, r"^'not an id' in LLM\(\) of model 'not an id' is no path that exists and no id of a hub"),
        ({"model": "package://nothing/at.all"}, r"^The package 'nothing' that LLM\(\) .* is not installed\.$"),
        ({"model": "m", "tensor_parallel_size": 2}, r"^LLM\(\) sets 'tensor_parallel_size', which is not supported: "),
        ({"model": "m", "max_model_length": 2}, r"^LLM\(\) has a key 'max_model_length' .* is 'max_model_len'\.$"),
        ({"model": "m", "max_num_seqs": 0}, r"^LLM\(\) of model 'm' is not valid: 'max_num_seqs' should be greater"),
    ],
)
def test_what_is_wrong_is_said_of_the_caller(arguments: dict, says: str) -> None:
    with pytest.raises(LoadFailed, match=says):
        direct_model(arguments, CALLER)


def test_all_names(snapshot: Path) -> None:
    assert direct_model({"model": snapshot}, CALLER).names == ["tiny"]
    assert direct_model({"model": snapshot, "served_model_name": ["a", "b"]}, CALLER).names == ["tiny", "a", "b"]
