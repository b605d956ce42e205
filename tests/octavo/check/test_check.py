"""``octavo check`` tells all that ``octavo serve`` would refuse, and plans the memory that an engine then takes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from octavo.cli import app
from octavo.errors import LoadFailed
from octavo.repository.repository import ModelRepository
from octavo.runtime.runner import ModelRunner

sys.path.insert(0, str(Path(__file__).parent))

from repositories import SMALL, write_model, write_snapshot


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_snapshot(tmp_path / "small", SMALL)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    return folder


def check(repository: Path, *words: str):
    return CliRunner().invoke(app, ["check", "--model-repository", str(repository), *words])


@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": "float32"},
        {"dtype": "bfloat16", "max_model_len": 100, "max_num_seqs": 3},
        {"dtype": "float32", "kv_cache_memory_bytes": 2**20, "block_size": 64},
    ],
)
def test_the_plan_is_what_the_engine_then_takes(small: Path, repository: Path, settings: dict) -> None:
    write_model(repository, "m", small, device="cpu", **settings)
    result = check(repository, "--json")
    assert result.exit_code == 0, result.output
    (finding,) = json.loads(result.stdout)["models"]
    runner = ModelRunner(ModelRepository([repository]).spec("m")[0].engine)
    info, plan = runner.info, finding["plan"]
    taken = (info.dtype, info.weights_bytes, info.page_size, info.num_pages, info.max_model_len)
    assert tuple(plan[name] for name in ("dtype", "weights_bytes", "page_size", "pages", "max_model_len")) == taken
    assert plan["kv_bytes"] == runner.num_pages * runner.kv_spec.bytes_per_page
    assert plan["tokens"] == info.num_pages * info.page_size
    pages_of_one = -(-info.max_model_len // info.page_size)
    assert plan["requests"] == min(settings.get("max_num_seqs", 256), info.num_pages // pages_of_one) > 0


def test_a_table_says_it_to_people(small: Path, repository: Path) -> None:
    write_model(repository, "m", small, device="cpu", swap_space=4)
    write_model(repository, "n", small, device="cpu")
    result = check(repository)
    assert result.exit_code == 0 and not result.stderr
    first, *rest = result.stdout.splitlines()
    assert first.startswith("Model 'm': model.json sets 'swap_space', which has no effect")
    rows = [line.split() for line in rest if line.strip()[:2] in ("m ", "n ")]
    assert [row[:4] for row in rows] == [["m", "1", "cpu", "bfloat16"], ["n", "1", "cpu", "bfloat16"]]
    assert rows[0][-3:] == ["256", "×", "2,048"]


def test_every_problem_of_every_model_has_a_line(small: Path, repository: Path, tmp_path: Path) -> None:
    write_model(repository, "a", small, "max_batch_size: 8 dynamic_batching {}", zzzzzzzz=1, enable_lora=True, seed="x")
    write_model(repository, "b", small, device="cpu", max_model_len=4096, block_size=16)
    write_model(repository, "c", small, device="cpu", kv_cache_memory_bytes=1000)
    write_model(repository, "d", small / "nowhere", device="cpu")
    write_model(repository, "e", write_snapshot(tmp_path / "moe", {**SMALL, "model_type": "mixtral"}), device="cpu")
    (write_snapshot(tmp_path / "mute", SMALL) / "tokenizer.json").unlink()
    write_model(repository, "f", tmp_path / "mute", device="cpu", max_model_len=9999)
    write_model(repository, "g", small, "instance_group [{ count: 2 }]", tokenizer="./elsewhere")
    (repository / "h").mkdir()
    write_model(repository, "well", small, device="cpu")
    result = check(repository)
    assert result.exit_code == 1
    told = [line.split(": ", 1) for line in result.stderr.splitlines()]
    assert [who for who, _ in told] == ["a", "a", "a", "a", "a", "b 1", "c 1", "d", "e 1", "f 1", "f 1", "g", "g", "h"]
    for (_, text), part in zip(
        told,
        [
            "max_batch_size of model 'a' must be 0",
            "dynamic_batching of model 'a' is not supported",
            "a key 'zzzzzzzz' that is not an engine argument",
            "model.json sets 'enable_lora', which is not supported",
            "model.json of model 'a' is not valid: 'seed' should",
            "max_model_len 4096 is more than the 2048 tokens of the model itself.",
            "one request of max_model_len 2048 needs",
            "The folder or file 'nowhere' that model.json of model 'd' names does not exist",
            "The model type 'mixtral' is not supported",
            "has no tokenizer.json",
            "max_model_len 9999 is more than",
            "has count 2; a model has one instance.",
            "elsewhere",
            "at least one version must be available",
        ],
        strict=True,
    ):
        assert part in text
    assert "well 1" in result.stdout


def test_what_is_told_is_what_a_load_says(small: Path, repository: Path) -> None:
    write_model(repository, "a", small, "platform: 'x'", enable_lora=True)
    with pytest.raises(LoadFailed) as refusal:
        ModelRepository([repository]).spec("a")
    assert [f"a: {problem}" for problem in refusal.value.problems] == check(repository).stderr.splitlines()


def test_heads_of_weights_are_read_and_no_weights(small: Path, repository: Path) -> None:
    tensors = {"model.embed_tokens.weight": np.zeros((512, 64), np.int8), "model.norm.weight": np.zeros(65, np.float32)}
    save_file({**tensors, "model.extra": np.zeros(1, np.float32)}, small / "model.safetensors")
    write_model(repository, "m", small, device="cpu", load_format="safetensors")
    told = check(repository).stderr
    assert "m 1: The weights lack 19 tensors: 'lm_head.weight', " in told
    assert "m 1: The weights hold 1 tensor that the model's config has no place for: 'model.extra'." in told
    assert "m 1: The tensor 'model.norm.weight' has shape [65], but the model's config makes it [64]." in told
    assert "m 1: The tensor 'model.embed_tokens.weight' is stored as I8, which is not supported" in told
    (small / "model.safetensors").write_bytes(b"\xff" * 100)
    assert "m 1: The file 'model.safetensors' is not a whole safetensors file." in check(repository).stderr


def test_nothing_to_check_is_a_problem(repository: Path) -> None:
    result = check(repository)
    assert (result.exit_code, result.stderr) == (1, "There is no model in the repository.\n")
    result = check(repository / "nowhere")
    assert (result.exit_code, result.stderr) == (1, "Error: The model repository 'nowhere' does not exist.\n")


@pytest.mark.parametrize("text", ["80", "GiB", "80 furlongs", "X100"])
def test_what_is_no_gpu_is_refused(repository: Path, text: str) -> None:
    result = check(repository, f"--gpu-memory={text}")
    assert result.exit_code == 2 and "must be a size like 80GiB, or one of" in result.stderr


def test_a_bare_snapshot_is_one_model(small: Path) -> None:
    assert "mine 1: The folder with the weights of model" not in check(small, "--model-name", "mine").stderr
    assert "mine: The folder with the weights of model 'mine' has no safetensors" in check(small, "--model-name", "mine").stderr
