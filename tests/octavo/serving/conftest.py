"""One server for most of this family: a tiny model is loaded, others lie in the repository and can be."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as triton

sys.path.insert(0, str(Path(__file__).parent))

from server import Server, running
from tiny import write_model, write_snapshot


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    write_snapshot(folder)
    return folder


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory, snapshot: Path) -> Path:
    """``tiny``: what most tests talk to, which also has other names. ``other``: to be loaded. ``two``: two versions.
    ``narrow``: serves one request and lets one wait. ``ranked``: serves one request at a time, by priority.
    ``untemplated``: has no chat template. ``thinking``: reasons and calls tools. ``broken*``: cannot be loaded."""
    folder = tmp_path_factory.mktemp("repository")
    write_model(folder, "tiny", snapshot, served_model_name=["org/tiny-chat", "small"])
    write_model(folder, "other", snapshot)
    write_model(folder, "two", snapshot, version=1)
    (folder / "two" / "3").mkdir()
    (folder / "two" / "3" / "model.json").write_text((folder / "two" / "1" / "model.json").read_text())
    write_model(folder, "narrow", snapshot, max_num_seqs=1, max_queue_size=1)
    write_model(folder, "broken", snapshot, max_modle_len=1)
    write_model(folder, "broken_engine", snapshot, max_model_len=10**6)
    weights = ("config.json", "model.safetensors")
    write_model(folder, "broken_tokenizer", _part_of(snapshot, folder.parent / "headless", *weights))
    write_model(folder, "untemplated", _part_of(snapshot, folder.parent / "untemplated", *weights, "tokenizer.json"))
    write_model(folder, "ranked", snapshot, max_num_seqs=1, scheduling_policy="priority")
    write_model(folder, "thinking", snapshot, tool_call_parser="hermes", reasoning_parser="qwen3")
    return folder


def _part_of(snapshot: Path, folder: Path, *files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for file in files:
        (folder / file).write_bytes((snapshot / file).read_bytes())
    return folder


@pytest.fixture(scope="session")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    with running(
        repository, "--model-control-mode=explicit", "--load-model=tiny", "--grpc-max-stream-requests=8", log=log
    ) as started:
        yield started
    # An engine that cannot load a model may log a trace; a front end and the supervisor never have a reason to.
    bugs = [line for line in started.log.read_text().splitlines() if "Internal error" in line or "Unexpected" in line]
    assert not bugs


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    connected = server.client()
    yield connected
    connected.close()
