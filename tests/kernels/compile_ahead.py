"""Compiles what the launchers would launch, for GPUs that are not there, and prints one JSON object a kernel.

``compile_ahead.py MODELS CAPABILITY`` with MODELS ``few`` or ``all`` and CAPABILITY 80 or 90. Runs without TRITON_INTERPRET: a
driver that only names its target stands in for the real one, and every launch stops after compiling. Shapes, tilings and
specialisations are the launchers' own.
"""

import ast
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler.code_generator import CodeGenerator, flatten_values_to_ir
from triton.language.core import base_value
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from octavo_kernels import Kernels, for_device, hopper
from octavo_kernels.linear_table import GATED_ROWS


class Attention(NamedTuple):
    heads: int
    kv_heads: int
    head_dim: int
    page_size: int


FEW = [Attention(9, 3, 64, 16), Attention(32, 8, 64, 64), Attention(32, 8, 128, 64)]
ALL = [
    *FEW,
    *(Attention(8, 2, head_dim, page) for head_dim in (64, 80, 96, 128, 256) for page in (16, 32, 64, 128)),
    *(Attention(2 * group, 2, 128, 64) for group in (1, 2, 3, 5, 6, 7, 8, 16)),
    Attention(64, 1, 64, 64),
]
MOST_ROWS = 2**16  # that settings allow
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


class NamedTarget:
    """As much of a Triton driver as compiling asks for."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0


def stop_after_compiling() -> None:
    """Make every launch compile, report once and return."""
    run, seen = JITFunction.run, set()

    def compile_only(self: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        capability = driver.active.get_current_device()
        if (capability, kernel.hash) not in seen:
            seen.add((capability, kernel.hash))
            print(json.dumps({"kernel": self.__name__, "capability": capability, "shared": kernel.metadata.shared} | usage(kernel)))

    JITFunction.run = compile_only


def refuse_lost_copies() -> None:
    """Fail where a loop assigns what came into it as a copy of a variable that the loop changes.

    Triton tells what a loop changes by its value after one turn. By then such a copy is what it was, and so it stays for good: a
    pipeline that keeps its last stage in one gives back the same stage for ever, and hangs.
    """
    find = CodeGenerator._find_carries

    def checked(self: CodeGenerator, node: Any, before: dict[str, Any], *rest: Any, **named: Any) -> Any:
        found = find(self, node, before, *rest, **named)
        names = [name for line in node.body for name in ast.walk(line) if isinstance(name, ast.Name)]
        assigned = {name.id for name in names if isinstance(name.ctx, ast.Store)}
        changed = [flatten_values_to_ir([before[name]]) for name in found[0]]
        kept = [name for name in (assigned & before.keys()) - {*found[0]} if isinstance(before[name], base_value)]
        lost = [name for name in kept if flatten_values_to_ir([before[name]]) in changed]
        assert lost == [], f"{lost} of {self.jit_fn.__name__} would not be carried; reckon them from what is"
        return found

    CodeGenerator._find_carries = checked


def usage(kernel: Any) -> dict[str, int]:
    """Registers and bytes of stack (spills) a thread, from the machine code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        listing = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    fields = dict(field.split(":") for line in listing.splitlines() if "REG:" in line for field in line.split())
    return {"registers": int(fields["REG"]), "stack": int(fields["STACK"])}


def launch(kernels: Kernels, model: Attention, chunks: list[int]) -> None:
    heads, kv_heads, head_dim, page_size = model
    tokens = torch.zeros(2, (heads + 2 * kv_heads) * head_dim, dtype=torch.bfloat16)
    kv = torch.zeros(2, 3, 2, kv_heads, page_size, head_dim, dtype=torch.bfloat16)[:, 1]
    index, lengths = torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int32)
    table = torch.zeros(2, 16384 // page_size, dtype=torch.int32)
    for norm in (None, torch.zeros(head_dim, dtype=torch.bfloat16)):
        q = kernels.rope_cache(tokens, index, torch.zeros(4, head_dim), index, kv, heads, kv_heads, norm, norm)
    kernels.paged_decode(q, kv, table, lengths, 1.0, kernels.plan_decode(lengths, kv_heads))
    for queries in chunks:
        plan = kernels.plan_prefill(lengths, lengths, max(2, queries), heads, kv_heads, head_dim)
        kernels.paged_prefill(q, kv, table, lengths, lengths, queries, 1.0, plan)


def multiply(kernels: Kernels, width: int, ffn: int) -> None:
    for rows in (1, 2, 24, 64):
        x = torch.zeros(rows, width, dtype=torch.bfloat16)
        fed = kernels.linear(x, torch.zeros(2 * ffn, width, dtype=torch.bfloat16), norm=x[0], eps=1e-5, swiglu=True)
        kernels.linear(fed, torch.zeros(width, ffn, dtype=torch.bfloat16), residual=x)
    many, narrow = (torch.zeros(rows, 64, dtype=torch.bfloat16) for rows in (GATED_ROWS, 2 * 64))
    kernels.linear(many, narrow, swiglu=True)


def main(
    capability: int, models: list[Attention], widths: list[tuple[int, int]], chunks: list[int], vocabularies: list[int]
) -> None:
    kernels, invariant = (for_device(torch.device("cuda"), which) for which in (False, True))
    stop_after_compiling()
    refuse_lost_copies()
    driver.set_active(NamedTarget(capability))
    hopper.is_hopper = lambda device: capability == 90
    x = torch.zeros(2, 4096, dtype=torch.bfloat16)
    kernels.rmsnorm(x, x[0], 1e-5)
    kernels.swiglu(x)
    for width, ffn in widths:
        multiply(kernels, width, ffn)
        multiply(invariant, width, ffn)
    real, whole, wide = torch.zeros(2), torch.zeros(2, dtype=torch.int32), torch.zeros(2, dtype=torch.int64)
    for vocabulary in vocabularies:
        logits, seen = torch.zeros(2, vocabulary), torch.zeros(2, vocabulary, dtype=torch.int16)
        kernels.penalise(logits, seen, wide, real, real, real)
        kernels.count_tokens(seen, wide, wide)
        kernels.apply_mask(logits, wide, torch.zeros(2, -(-vocabulary // 32), dtype=torch.int32), wide)
        kernels.sample(logits, real, whole, real, real, wide, whole, wide)
        kernels.sample(torch.zeros(8, vocabulary), real, whole, real, real, wide, whole, wide)
    crowd = torch.zeros(MOST_ROWS, dtype=torch.int32)
    kernels.plan_decode(crowd, 8)
    kernels.plan_prefill(torch.zeros(MOST_ROWS + 1, dtype=torch.int32), crowd, MOST_ROWS, 32, 8, 128)
    for model in models:
        launch(kernels, model, chunks)
        launch(invariant, model, chunks[:1])


if __name__ == "__main__":
    if sys.argv[1] == "all":
        main(
            int(sys.argv[2]),
            ALL,
            [(576, 1536), (1024, 3072), (2048, 8192), (4096, 14336)],
            [1, 8, 16, 32, 64, 128, 1024],
            [32_000, 49_152, 128_256, 262_144],
        )
    else:
        main(int(sys.argv[2]), FEW, [(576, 1536), (2048, 8192)], [1, 128, 1024], [49_152])
