"""Kernels are compiled before a step needs them, once, by workers that can do no harm; and what is compiled late is told."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from octavo.runtime.ahead import CACHE_VARIABLE, SHIPPED_VARIABLE, choose_cache

pytest.importorskip("triton.backends.nvidia")
NEW = "Now one that the start has not met"
LATE = "WARNING _swiglu_kernel was compiled after the engine was ready"
LAUNCHED = {"_decode_inputs_kernel", "_gemv_kernel", "_rmsnorm_kernel", "_rope_cache_kernel", "_swiglu_kernel", "_plan_kernel"}
LAUNCHED |= {"_apply_mask_kernel"}
LAUNCHED |= {"_penalise_kernel", "_count_tokens_kernel", "scan_kernel", "settle_kernel", "spread_kernel", "finish_kernel"}
ATTENTION = {
    80: {"_decode_kernel", "_prefill_kernel"},
    90: {"_decode_hopper_kernel", "_plan_prefill_kernel", "_prefill_hopper_kernel", "_skinny_kernel"},
}
SOME = {"_skinny_kernel", "_gated_kernel"}  # which only some sizes of steps need


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 1000, "hidden_size": 256,
        "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def start_up(what: str, model: Path, *, capability: int = 90, fails: str = "", **settings: object) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": ":".join(path for path in sys.path if path), "FAILS": fails}
    environment[CACHE_VARIABLE] = str(model.parent / "cache")
    asked = {"config": {"weights": str(model)} | settings, "capability": capability, "page_size": 64}
    script = Path(__file__).with_name("start_up.py")
    return subprocess.run(
        [sys.executable, script, what, json.dumps(asked)], capture_output=True, text=True, env=environment, check=False
    )


@pytest.mark.parametrize(
    ("capability", "settings"),
    [
        (90, {"max_num_seqs": 256, "max_num_batched_tokens": 2048}),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in [
                (80, {"max_num_seqs": 1100, "max_num_batched_tokens": 2048}),
                (80, {"max_num_seqs": 5, "max_num_batched_tokens": 700, "max_model_len": 20}),
                (90, {"max_num_seqs": 1, "max_num_batched_tokens": 100}),
                (90, {"max_num_seqs": 300, "max_num_batched_tokens": 512, "dtype": "float32"}),
                (90, {"max_num_seqs": 64, "max_num_batched_tokens": 2048, "deterministic": True}),
            ]
        ),
    ],
)
def test_whatever_steps_come_the_start_has_met_their_kernels(model: Path, capability: int, settings: dict[str, object]) -> None:
    done = start_up("kernels", model, capability=capability, **settings)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["met_later"] == found["not_compiled_ahead"] == found["compiled_in_vain"] == found["renamed"] == []
    if not settings.keys() & {"dtype", "deterministic"}:
        assert set(found["names"]) - SOME == LAUNCHED | (ATTENTION[capability] - SOME)


def test_workers_compile_each_kernel_once_and_a_late_one_is_told(model: Path) -> None:
    first, second = (start_up("workers", model).stderr for _ in range(2))
    assert "INFO Compiled 6 kernels in" in first
    assert first.count("WARNING") == first.partition(NEW)[2].count(LATE) == 1
    assert "Compiled" not in second  # the start is known
    assert "WARNING" not in second
    for known in (model.parent / "cache").glob("octavo-*"):
        known.unlink()
    assert "INFO Compiled 0 kernels in" in start_up("workers", model).stderr


def test_a_killed_worker_leaves_its_work_to_the_other(model: Path) -> None:
    told = start_up("workers", model, fails="one is killed").stderr
    assert "WARNING 1 of 2 workers have failed" in told
    assert told.count(LATE) == told.partition(NEW)[2].count(LATE) == 1
    assert not [*(model.parent / "cache").glob("octavo-*")]  # the next start looks again


def test_the_engine_compiles_what_failing_workers_leave(model: Path) -> None:
    done = start_up("workers", model, fails="all raise")
    assert done.returncode == 0
    assert "WARNING 2 of 2 workers have failed" in done.stderr
    assert done.stderr.count("ValueError: as the test wants it") == 1
    assert done.stderr.count(LATE) == 4


def test_workers_end_with_the_engine(model: Path) -> None:
    done = start_up("orphans", model)
    deadline = time.monotonic() + 10
    workers = json.loads(done.stdout)
    assert len(workers) == 2
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_kernels_of_an_image_are_found_beside_those_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, cache = tmp_path / "image", tmp_path / "cache"
    for folder in (image / "shipped", image / "both", cache / "both"):
        folder.mkdir(parents=True)
    (image / "octavo-known-start").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(cache))
    monkeypatch.setenv(SHIPPED_VARIABLE, str(image))
    for _ in range(2):
        assert choose_cache() == cache
        assert {path.name for path in cache.iterdir()} == {"shipped", "both"}
    assert (cache / "shipped").resolve() == image / "shipped" and not (cache / "both").is_symlink()
    monkeypatch.setenv(SHIPPED_VARIABLE, str(tmp_path / "nowhere"))
    assert choose_cache() == cache


def test_where_kernels_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "named"))
    assert choose_cache() == tmp_path / "named"
    monkeypatch.setenv(CACHE_VARIABLE, "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "users"))
    assert choose_cache() == tmp_path / "users" / "octavo" / "kernels"
    assert os.environ[CACHE_VARIABLE] == str(choose_cache())


def test_without_a_folder_to_keep_kernels_in_the_engine_starts_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert choose_cache().is_dir()
    assert f"set {CACHE_VARIABLE}" in caplog.text
