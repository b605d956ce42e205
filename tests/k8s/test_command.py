"""``octavo k8s``: the examples of ``k8s/services``, made by the command for a user's own model."""

import importlib.util
import os
from pathlib import Path

import manifests
import pytest
import yaml
from tiny import write_model, write_snapshot
from typer.testing import CliRunner, Result

from octavo.cli import app

STORAGE = "hf://HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    write_snapshot(tmp_path / "snapshot")
    return tmp_path / "snapshot"


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a kubectl of ours was given, its arguments first; it ends with 7."""
    seen, program = tmp_path / "seen", tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n{{ echo "$@"; cat; }} > {seen}\nexit 7\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return seen


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["k8s", *map(str, arguments)])


def test_a_snapshot_becomes_the_example_of_a_service(snapshot: Path, kubectl: Path) -> None:
    result = run("demo", "--model-repository", snapshot, "--storage-uri", STORAGE, "--apply")
    assert (result.exit_code, result.stdout) == (7, "")
    arguments, _, given = kubectl.read_text().partition("\n")
    assert arguments == "apply -f -"
    example = yaml.safe_load((manifests.ROOT / "services" / "base" / "service.yaml").read_text())
    example["metadata"]["name"] = "demo"
    assert yaml.safe_load(given) == example


@pytest.mark.long
def test_one_model_of_several_on_a_gpu_under_knative(snapshot: Path, tmp_path: Path) -> None:
    for name in ("My_Model.v2", "other"):
        write_model(tmp_path / "repository", name, snapshot)
    where = ("--model-repository", tmp_path / "repository", "--storage-uri", "pvc://models/all")
    result = run("My_Model.v2", *where, "--namespace=chat", "--mode=Knative", "--gpu")
    assert result.exit_code == 0, result.output
    service = yaml.safe_load(result.stdout)
    assert manifests.wrong_with([manifests.Manifest("printed", service)]) == [[]]
    assert (service["metadata"]["name"], service["metadata"]["namespace"]) == ("my-model-v2", "chat")
    model = service["spec"]["predictor"]["model"]
    assert (model["modelFormat"], model["runtime"]) == ({"name": "triton-repository"}, "octavo-knative-gpu")
    assert model["args"] == ["--model-control-mode=explicit", "--load-model=My_Model.v2"]
    assert (model["protocolVersion"], "terminationGracePeriodSeconds" in service["spec"]["predictor"]) == ("grpc-v2", False)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nope"], "failed to load 'nope'"),
        (["tiny", "--storage-uri=models"], "'models' is not a storage URI"),
        (["tiny", "--name=Tiny"], "'Tiny' cannot be the name of a service"),
        (["tiny", "--gpu"], "Model 'tiny' is placed on the CPU"),
        (["broken"], "max_modle_len"),
    ],
)
def test_what_could_not_be_served_is_refused(snapshot: Path, tmp_path: Path, arguments: list[str], text: str) -> None:
    write_model(tmp_path / "repository", "tiny", snapshot, device="cpu")
    write_model(tmp_path / "repository", "broken", snapshot, max_modle_len=9)
    result = run("--model-repository", tmp_path / "repository", f"--storage-uri={STORAGE}", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert text in result.stderr


def test_what_the_command_needs_is_named(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("demo", "--model-repository", snapshot, "--storage-uri", STORAGE, "--apply")
    monkeypatch.setenv("PATH", str(snapshot))
    assert run(*given).stderr == "Error: --apply needs kubectl, and there is none in PATH.\n"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run(*given).stderr == "Error: `octavo k8s` needs the KServe SDK; install octavo[kserve].\n"
