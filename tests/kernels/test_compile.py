"""Every kernel compiles ahead of time for sm_80 and sm_90, within their shared memory and with next to no spilling."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton.backends.nvidia")
SHARED = {80: 163 * 1024, 90: 227 * 1024}
SPILL = {80: 128, 90: 64}  # bytes a thread
KERNELS = {"_rmsnorm", "_swiglu", "_gemv", "_rope_cache", "_plan", "_decode", "_prefill", "_penalise", "_count_tokens"}
KERNELS |= {"_apply_mask", "scan", "settle", "spread", "finish", "_invariant_linear"}
HOPPER = {"_skinny", "_gated", "_plan_prefill", "_decode_hopper", "_prefill_hopper"}


@pytest.mark.parametrize("models", ["few", pytest.param("all", marks=[pytest.mark.long, pytest.mark.timeout(3000)])])
def test_compiles_for_gpus_that_are_not_here(models: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = ":".join(path for path in sys.path if path)
    script = Path(__file__).with_name("compile_ahead.py")
    compilers = {
        capability: subprocess.Popen(
            [sys.executable, script, models, str(capability)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for capability in SHARED
    }
    for capability, compiler in compilers.items():
        output, errors = compiler.communicate()
        assert compiler.returncode == 0, errors
        compiled = [json.loads(line) for line in output.splitlines()]
        assert {kernel["kernel"] for kernel in compiled} == {
            f"{name}_kernel" for name in KERNELS | (HOPPER if capability == 90 else set())
        }
        assert [kernel for kernel in compiled if kernel["shared"] > SHARED[capability]] == []
        assert [kernel for kernel in compiled if kernel["stack"] > SPILL[capability]] == []
