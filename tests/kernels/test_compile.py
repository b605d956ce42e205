"""Every kernel compiles ahead of time for sm_80 and sm_90, within their shared memory and with next to no spilling."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton.backends.nvidia")
SHARED = {80: 163 * 1024, 90: 227 * 1024}
SPILL = {80: 128, 90: 32}  # bytes a thread
KERNELS = {"_rmsnorm", "_swiglu", "_gemv", "_rope_cache", "_plan", "_decode", "_prefill", "_penalise", "_count_tokens"}
KERNELS |= {"scan", "settle", "spread", "finish"}
HOPPER = {"_skinny", "_decode_hopper", "_prefill_hopper"}


@pytest.mark.parametrize("models", ["few", pytest.param("all", marks=[pytest.mark.long, pytest.mark.timeout(3000)])])
def test_compiles_for_gpus_that_are_not_here(models: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = ":".join(path for path in sys.path if path)
    script = Path(__file__).with_name("compile_ahead.py")
    done = subprocess.run([sys.executable, script, models], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    compiled = [json.loads(line) for line in done.stdout.splitlines()]
    for capability, limit in SHARED.items():
        mine = [kernel for kernel in compiled if kernel["capability"] == capability]
        assert {kernel["kernel"] for kernel in mine} == {
            f"{name}_kernel" for name in KERNELS | (HOPPER if capability == 90 else set())
        }
        assert [kernel for kernel in mine if kernel["shared"] > limit] == []
        assert [kernel for kernel in mine if kernel["stack"] > SPILL[capability]] == []
