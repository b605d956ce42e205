"""Names of devices, cores and page sizes: what is taken and what is refused."""

import pytest
import torch

from octavo.errors import LoadFailed
from octavo.runtime.device import resolve_device, resolve_page_size


def test_a_machine_without_a_gpu_runs_auto_on_its_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(LoadFailed, match="The device 'cuda:1' does not exist: torch sees 0 CUDA devices"):
        resolve_device("cuda:1")


def test_a_gpu_is_taken_by_auto_and_by_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(LoadFailed, match="sees 2 CUDA devices"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["tpu", "", "cpu:0", "cuda:x", "cuda:-1", "CUDA"])
def test_other_devices_are_refused_by_name(name: str) -> None:
    with pytest.raises(LoadFailed, match=f"The device '{name}' is not known"):
        resolve_device(name)


def test_pages_are_larger_on_a_gpu_and_can_be_set() -> None:
    assert resolve_page_size(None, torch.device("cpu")) == 16
    assert resolve_page_size(None, torch.device("cuda")) == 64
    assert resolve_page_size(32, torch.device("cuda")) == 32
    with pytest.raises(LoadFailed, match="block_size must be 16, 32, 64 or 128 tokens, got 24"):
        resolve_page_size(24, torch.device("cpu"))
