"""Where the kernel tests run: every case on the twin, in Triton's interpreter, and (marked gpu) on a CUDA device.

A test module lists ``CASES``, small enough for the interpreter, and ``GPU_CASES`` beside them; a test that takes ``place`` and
``case`` gets their product. Without a CUDA device Triton must interpret, which it decides when it is first imported.
"""

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch

HAS_CUDA = torch.cuda.is_available()
if not HAS_CUDA:
    os.environ["TRITON_INTERPRET"] = "1"

import triton.language as tl  # noqa: E402
from triton.runtime import interpreter  # noqa: E402

from octavo_kernels import Kernels, for_device  # noqa: E402


@functools.cache
def _names_of_builtins(place: object) -> list[str]:
    return [name for name, member in inspect.getmembers(place) if tl.core.is_builtin(member)]


def _patch_builtin(place: object, *how: object) -> None:
    """As the interpreter does, which looks through the whole language whenever a function in a kernel is called."""
    for name in _names_of_builtins(place):
        if tl.core.is_builtin(member := getattr(place, name)):
            interpreter._patch_attr(place, name, member, *how)


interpreter._patch_builtin = _patch_builtin


class Place(NamedTuple):
    """A set of kernels, the device of their tensors, a dtype and the relative error that it allows."""

    triton: bool
    device: torch.device
    dtype: torch.dtype
    tolerance: float

    @property
    def kernels(self) -> Kernels:
        return for_device(torch.device("cuda" if self.triton else "cpu"))

    def put(self, values: torch.Tensor) -> torch.Tensor:
        """Floating-point values in the place's dtype, on its device."""
        return values.to(self.device, self.dtype)


Cache = tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]
_CPU, _CUDA = torch.device("cpu"), torch.device("cuda")
# Float32 rounding over the device cases' 100,000 keys reaches 1.5e-5; tf32, which must not be used for float32, would be at 3e-4.
_TOLERANCE = {torch.float32: 5e-5, torch.float16: 3e-3, torch.bfloat16: 1e-2}
_INTERPRETER = pytest.mark.skipif(HAS_CUDA, reason="with a CUDA device Triton compiles")
_GPU = [pytest.mark.gpu, pytest.mark.skipif(not HAS_CUDA, reason="needs a CUDA device")]


def _place(kind: str, dtype: torch.dtype) -> Place:
    return Place(kind != "twin", _CUDA if kind == "cuda" else _CPU, dtype, _TOLERANCE[dtype])


_SMALL = [
    ("twin", torch.float32, []),
    ("twin", torch.bfloat16, []),
    ("interpreter", torch.float32, [_INTERPRETER]),
    ("interpreter", torch.float16, [_INTERPRETER]),
]
_BIG = [("cuda", dtype, _GPU) for dtype in _TOLERANCE]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every place with its cases: the big ones on a GPU only."""
    if {"place", "case"} <= set(metafunc.fixturenames):
        small, big = metafunc.module.CASES, metafunc.module.GPU_CASES
        runs = [(*run, case) for run in _SMALL for case in small] + [(*run, case) for run in _BIG for case in small + big]
        metafunc.parametrize(
            ("place", "case"),
            [
                pytest.param(_place(kind, dtype), case, marks=marks, id=f"{kind}-{str(dtype)[6:]}-{case.name}")
                for kind, dtype, marks, case in runs
            ],
        )


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """New memory is full of NaN (integers: of their maximum), so that an element nobody wrote shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def fill_cache() -> Callable[..., Cache]:
    """Builds a paged cache: ``fill_cache(place, case, lengths, table_width=0)``."""
    return _fill_cache


def _fill_cache(
    place: Place, case: Any, lengths: list[int], table_width: int = 0
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """The rows' tokens in random pages at the end of a pool: one layer, the page table, and each row's [2, KV, length, D].

    Whatever no row uses is NaN, or merely large for the twin, which needs a finite cache.
    """
    pages = [-(-length // case.page_size) for length in lengths]
    shape = (sum(pages) + case.spare_pages, case.layers, 2, case.kv_heads, case.page_size, case.head_dim)
    junk = float("nan") if place.triton else 100.0
    layer = torch.full(shape, junk, dtype=place.dtype, device=place.device)[:, case.layers - 1]
    table = torch.zeros(len(pages), max(table_width, *pages, 1), dtype=torch.int32)
    free = (torch.randperm(sum(pages)) + case.spare_pages).tolist()
    rows = []
    for row, length in enumerate(lengths):
        tokens = place.put(torch.randn(2, case.kv_heads, length, case.head_dim))
        for number, part in enumerate(tokens.split(case.page_size, dim=2) if length else []):
            table[row, number] = free.pop()
            layer[table[row, number], :, :, : part.shape[2]] = part
        rows.append(tokens)
    return layer, table.to(place.device), rows
