"""``octavo bench``: each measurement prints a table and writes its figures; what the figures are is no test's business."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "serving"))

from tiny import write_snapshot
from typer.testing import CliRunner

from octavo.cli import app


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        pytest.param("latency", ["--rounds=1", "--input-len=4", "--output-len=2"], marks=pytest.mark.long),
        ("throughput", ["--rounds=1", "--input-len=4", "--output-len=2", "--requests=2"]),
        pytest.param("throughput", ["--rounds=1", "--input-len=4", "--output-len=2", "--llm"], marks=pytest.mark.long),
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


@pytest.mark.long
def test_llm_beside_an_engine_of_random_weights(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "tiny")
    version = tmp_path / "models" / "tiny" / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text('backend: "octavo"')
    (tmp_path / "tiny" / "model.safetensors").unlink()
    settings = {"model": str(tmp_path / "tiny"), "load_format": "dummy", "device": "cpu", "kv_cache_memory_bytes": 2**22}
    (version / "model.json").write_text(json.dumps(settings))
    file, few = tmp_path / "figures.json", ["--llm", "--requests=2", "--input-len=4", "--output-len=4", "--rounds=1"]
    done = CliRunner().invoke(app, ["bench", "throughput", f"--model-repository={tmp_path / 'models'}", f"--json={file}", *few])
    assert done.exit_code == 0, done.output
    assert all(figure["value"] > 0 for figure in json.loads(file.read_text(encoding="utf-8"))["figures"])


@pytest.fixture
def config_only(tmp_path: Path) -> Path:
    """A folder that holds nothing but the config of a tiny Llama."""
    config = {
        "model_type": "llama", "vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "dtype": "float32",
    }  # fmt: skip
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_offline_with_random_weights_beside_a_peer(config_only: Path, tmp_path: Path) -> None:
    file, peer = tmp_path / "ours.json", tmp_path / "other.json"
    peer.write_text(json.dumps([{"phase": "16/8/4", "n": 4, "isl": 16, "osl": 8, "seconds": 100.0}]), encoding="utf-8")
    flags = [
        "--load-format=dummy",
        "--phases=16/8/4,32/1/2,4/3/20",
        "--max-num-seqs=12",
        "--device=cpu",
        '--settings={"block_size": 32}',
    ]
    done = CliRunner().invoke(app, ["bench", "offline", str(config_only), f"--json={file}", f"--peer={peer}", *flags])
    assert done.exit_code == 0, done.output
    assert "Start to first token" in done.output
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert (kept["settings"]["name"], kept["settings"]["max_num_seqs"], kept["settings"]["block_size"]) == ("tiny", 12, 32)
    assert all(value > 0 for value in (*kept["ceilings"].values(), *kept["start"].values()))
    assert [phase["phase"] for phase in kept["phases"]] == ["16/8/4", "32/1/2", "4/3/20"]
    assert kept["phases"][0]["decode"]["steps"] == 7
    assert [phase["decode"] for phase in kept["phases"][1:]] == [None, None]
    again = CliRunner().invoke(app, ["bench", "compare", str(file), str(peer)])
    assert again.exit_code == 0, again.output
    assert again.output in done.output


@pytest.mark.parametrize("settings", ["[]", "{", '"b"'])
def test_settings_are_a_json_object(config_only: Path, settings: str) -> None:
    done = CliRunner().invoke(app, ["bench", "offline", str(config_only), "--load-format=dummy", f"--settings={settings}"])
    assert done.exit_code == 2
    assert "--settings" in done.output


@pytest.mark.parametrize(
    ("phases", "why"), [("b3", "is no phase"), ("250/7/1", "has requests of 257 tokens"), ("itl", "at most 256")]
)
def test_offline_refuses_what_it_cannot_run(config_only: Path, phases: str, why: str) -> None:
    done = CliRunner().invoke(app, ["bench", "offline", str(config_only), "--load-format=dummy", f"--phases={phases}"])
    assert done.exit_code == 2
    assert why in " ".join(done.output.replace("│", " ").split())


def test_a_profile_without_a_gpu_is_refused_in_a_sentence(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "tiny")
    done = CliRunner().invoke(app, ["bench", "profile", str(tmp_path / "tiny"), "--device=cpu"])
    assert (done.exit_code, done.output) == (1, "Error: A profile needs a GPU: on a CPU there are no kernels to see.\n")
