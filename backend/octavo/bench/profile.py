"""One decode step, kernel by kernel: what each costs, and at what rate it reads. Knows an engine and torch's profiler; CUDA only.

A kernel's cost is the time from the end of the one before it to its own end, so that the costs of a step add up to the step, also
where kernels start before their predecessor ends. Profiling makes a step somewhat slower than it is.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from octavo.bench.ceilings import measure
from octavo.bench.engine import InProcessEngine
from octavo.bench.machine import describe
from octavo.bench.prompts import random_prompts
from octavo.bench.results import Line, Profile
from octavo.config import EngineConfig
from octavo.models.loader import DTYPES
from octavo.models.shape import ModelShape
from octavo.runtime.device import resolve_device

STEPS = 32
_LINEAR = re.compile(r"gemv|gemm|skinny|linear|nvjet|cutlass", re.IGNORECASE)
_ATTENTION = re.compile(r"attend|attention|decode", re.IGNORECASE)
_NOISE = re.compile(r"^void |\(anonymous namespace\)::|at::native::")


class Kernel(NamedTuple):
    """One launch: its name, and when it ended in microseconds."""

    name: str
    end: float


class Weights(NamedTuple):
    """Bytes that the parts of one layer and the head read: four linears, and attention."""

    linears: dict[str, float]
    attention: float
    head: float


def run(config: EngineConfig, shape: ModelShape, rows: int, input_len: int) -> Profile:
    """Load, and profile decode steps of ``rows`` requests with ``input_len`` tokens in. ``RuntimeError`` without a GPU."""
    device = resolve_device(config.device)
    if device.type != "cuda":
        raise RuntimeError("A profile needs a GPU: on a CPU there are no kernels to see.")
    engine = InProcessEngine(config)
    copy = measure(device, torch.bfloat16).copy
    context = input_len + STEPS // 2
    weights = weights_of(shape, rows, context, DTYPES[engine.core.info.dtype].itemsize)
    lines = lines_of(_kernels(engine, rows, input_len), shape.num_layers, weights)
    return Profile(
        machine=describe(device), model=config.name, rows=rows, context=context, copy_gb_s=copy / 1e9, lines=lines
    )  # fmt: skip


def _kernels(engine: InProcessEngine, rows: int, input_len: int) -> list[Kernel]:
    """Every kernel of a run of some steps, in the order of their ends."""
    prompts = random_prompts(rows, input_len, engine.core.info.vocab_size, seed=1)
    engine.generate(prompts, STEPS)
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiler:
        engine.generate(prompts, STEPS)
    events = [event for event in profiler.events() if event.device_type == DeviceType.CUDA]
    kernels = (event for event in events if not event.name.startswith(("Memcpy", "Memset")))
    return sorted((Kernel(_NOISE.sub("", event.name), event.time_range.end) for event in kernels), key=lambda kernel: kernel.end)


def weights_of(shape: ModelShape, rows: int, context: int, itemsize: int) -> Weights:
    """For ``rows`` rows of ``context`` tokens, ``itemsize`` bytes a number."""
    hidden, ffn, queries = shape.hidden_size, shape.intermediate_size, shape.num_heads * shape.head_dim
    keys = shape.num_kv_heads * shape.head_dim
    linears = {
        "qkv": (queries + 2 * keys) * hidden,
        "out": hidden * queries,
        "gate and up": 2 * ffn * hidden,
        "down": hidden * ffn,
    }
    attention = rows * context * 2 * keys * itemsize
    return Weights({part: size * itemsize for part, size in linears.items()}, attention, shape.vocab_size * hidden * itemsize)


def lines_of(kernels: list[Kernel], num_layers: int, weights: Weights) -> list[Line]:
    """The kernels of one step, averaged over the last steps and over the layers. ``RuntimeError`` if no step recurs."""
    names = [kernel.name for kernel in kernels]
    size = _step_size(names, num_layers)
    count = next(n for n in range(STEPS, 1, -1) if (n + 1) * size <= len(names) and _recurs(names, size, n))
    first = len(kernels) - count * size
    ends = [kernel.end for kernel in kernels[first - 1 :]]
    costs = [sum(ends[at + 1] - ends[at] for at in range(place, count * size, size)) / count for place in range(size)]
    return list(_lines(names[-size:], costs, num_layers, weights))


def _lines(names: list[str], costs: list[float], num_layers: int, weights: Weights) -> Iterator[Line]:
    start, width = _layers(names, num_layers)
    end = start + width * num_layers
    yield from (Line(name, "before the layers", 1, cost, None) for name, cost in zip(names[:start], costs, strict=False))
    layer = names[start : start + width]
    linear = [place for place, name in enumerate(layer) if _LINEAR.search(name)]
    parts = dict(zip(linear, weights.linears, strict=True)) if len(linear) == len(weights.linears) else {}
    for place, name in enumerate(layer):
        cost = sum(costs[start + place : end : width]) / num_layers
        part = parts.get(place, "attention" if _ATTENTION.search(name) else "layer")
        read = weights.linears.get(part, weights.attention if part == "attention" else None)
        yield Line(name, part, num_layers, cost, None if read is None else read / cost / 1e3)
    heads = [name for name in names[end:] if _LINEAR.search(name)]
    for name, cost in zip(names[end:], costs[end:], strict=True):
        head = len(heads) == 1 and name == heads[0]
        yield Line(name, "head" if head else "after the layers", 1, cost, weights.head / cost / 1e3 if head else None)


def _step_size(names: list[str], num_layers: int) -> int:
    """How many kernels a step has: the shortest run of names, one a layer at least, that ends the list three times over."""
    for size in range(num_layers, len(names) // 4 + 1):
        if _recurs(names, size, 3):
            return size
    raise RuntimeError("The kernels of the last steps do not recur; were these decode steps?")


def _recurs(names: list[str], size: int, times: int) -> bool:
    return names[-size * times :] == names[-size:] * times


def _layers(names: list[str], num_layers: int) -> tuple[int, int]:
    """Where the layers begin in a step, and how many kernels one has; the most that fit."""
    for width in range(len(names) // num_layers, 0, -1):
        for start in range(len(names) - width * num_layers + 1):
            if names[start : start + width * num_layers] == names[start : start + width] * num_layers:
                return start, width
    raise RuntimeError("The kernels of a step do not recur once for each layer.")
