"""for_device: the twins mirror the kernels, and a machine without Triton can use them."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from octavo_kernels import Kernels, for_device


@pytest.mark.parametrize("name", Kernels._fields)
def test_twin_has_the_signature_of_its_kernel_and_both_have_a_test(name: str) -> None:
    kernel, twin = (getattr(for_device(torch.device(device)), name) for device in ("cuda", "cpu"))
    assert kernel is not twin
    assert inspect.signature(kernel) == inspect.signature(twin)
    assert (Path(__file__).parent / f"test_{name}.py").exists()


@pytest.mark.parametrize("name", Kernels._fields)
def test_the_invariant_ones_have_the_arguments_of_the_others(name: str) -> None:
    plain = getattr(for_device(torch.device("cpu")), name)
    kernel, twin = (getattr(for_device(torch.device(device), invariant=True), name) for device in ("cuda", "cpu"))
    assert inspect.signature(kernel) == inspect.signature(twin)
    assert [*inspect.signature(twin).parameters] == [*inspect.signature(plain).parameters]


def test_a_cpu_needs_no_triton() -> None:
    script = (
        "import sys; sys.modules['triton'] = None; import torch; from octavo_kernels import for_device;"
        "print(for_device(torch.device('cpu')).swiglu(torch.ones(1, 4)).shape)"
    )
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == "torch.Size([1, 2])\n", done.stderr
