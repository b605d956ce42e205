"""A disk that is full while a model is fetched: the load says so, nothing else is touched, and with room it works."""

import resource
from pathlib import Path

import pytest
from fake_hub import fake_hub
from server import running
from tiny import write_model
from tritonclient.utils import InferenceServerException

REPO = "house/tiny"
FULL = 200_000  # bytes of any one file; the weights have twice as many


def test_a_full_disk_fails_one_load_and_leaves_the_rest_alone(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "models", "here", snapshot)
    write_model(tmp_path / "models", "fetched", Path(REPO))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    flags = ("--model-control-mode=explicit", "--load-model=here")
    with fake_hub(snapshot, REPO) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        with running(tmp_path / "models", *flags, log=tmp_path / "log") as server:
            client, whole = server.client(), resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (FULL, whole[1]))
            with pytest.raises(InferenceServerException, match="There is no room left on the disk to download 'house/tiny'"):
                client.load_model("fetched")
            assert client.is_model_ready("here")
            assert not client.is_model_ready("fetched")
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, whole)
            client.load_model("fetched")
            assert client.is_model_ready("fetched")
            client.close()
