"""One decode step, kernel by kernel: what each costs, and at what rate it reads. Knows an engine and torch's profiler; CUDA only.

A kernel's cost is the time from the end of the one before it to its own end, so that the costs of a step add up to the step, also
where kernels start before their predecessor ends. Profiling makes a step somewhat slower than it is.
"""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from statistics import mean
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
from octavo.errors import Unsupported
from octavo.models.loader import DTYPES
from octavo.models.shape import ModelShape
from octavo.runtime.device import resolve_device

STEPS = 32
_SETTLING = 4  # steps in which all decode, before those that are profiled: the first one captures its graphs
_FEWEST = 3  # alike steps, without which there is nothing to average
_LINEAR = re.compile(r"gemv|gemm|skinny|gated|linear|nvjet|cutlass", re.IGNORECASE)
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
    """Load, and profile decode steps of ``rows`` requests with ``input_len`` tokens in. ``Unsupported`` without a GPU."""
    device = resolve_device(config.device)
    if device.type != "cuda":
        raise Unsupported("A profile needs a GPU: on a CPU there are no kernels to see.")
    engine = InProcessEngine(config)
    copy = measure(device, torch.bfloat16).copy
    all_decode(engine, rows, input_len)
    context = round(mean(engine.core.scheduler.lengths())) + STEPS // 2
    weights = weights_of(shape, rows, context, DTYPES[engine.core.info.dtype].itemsize)
    lines = lines_of(_kernels(engine, rows), shape.num_layers, weights)
    return Profile(
        machine=describe(device), model=config.name, rows=rows, context=context, copy_gb_s=copy / 1e9, lines=lines
    )  # fmt: skip


def all_decode(engine: InProcessEngine, rows: int, input_len: int) -> None:
    """Submit ``rows`` requests of ``input_len`` tokens, and step until all of them decode and the steps have settled.

    They go on for as long as there is room, as the first of them decode long before the last. ``Unsupported`` if some cannot.
    """
    info, config = engine.core.info, engine.config
    longest = min(info.max_model_len, info.num_pages * info.page_size)
    if rows > min(config.max_num_seqs, config.max_num_batched_tokens) or input_len + STEPS > longest:
        raise _too_many(rows)
    prompts = random_prompts(rows, input_len, info.vocab_size, seed=1)
    waited_for = set(engine.submit(prompts, longest - input_len))
    while waited_for:
        waited_for.difference_update(_step(engine, rows))
    for _ in range(_SETTLING):
        _step(engine, rows)


def _step(engine: InProcessEngine, rows: int) -> list[int]:
    """One step, see ``InProcessEngine``; ``Unsupported`` if any of ``rows`` requests had to start over or is over."""
    made, stats = engine.step(), engine.core.scheduler.stats()
    if stats.preemptions or stats.running + stats.waiting < rows:
        raise _too_many(rows)
    return made


def _too_many(rows: int) -> Unsupported:
    return Unsupported(
        f"{rows} requests do not decode at once for {STEPS} steps: ask for fewer or shorter ones, or raise max_num_seqs, "
        "max_num_batched_tokens or the KV cache."
    )


def _kernels(engine: InProcessEngine, rows: int) -> list[Kernel]:
    """Every kernel of ``STEPS`` steps of an engine in which ``rows`` requests decode, in the order of their ends."""
    torch.cuda.synchronize()  # the step in flight is not one of them
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiler:
        for _ in range(STEPS):
            _step(engine, rows)
        torch.cuda.synchronize()
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
    """The kernels of one of ``STEPS`` steps, averaged over the steps that are alike and over the layers.

    Others have more kernels than most, for rows that come to a new page. ``Unsupported`` if there are no steps that are alike.
    """
    names = [kernel.name for kernel in kernels]
    steps = _steps(names)
    alike, count = Counter(tuple(names[step]) for step in steps).most_common(1)[0] if steps else ((), 0)
    if count < _FEWEST:
        raise Unsupported("The kernels of the steps do not recur; were these decode steps?")
    ends = [kernel.end for kernel in kernels]
    firsts = [step.start for step in steps if tuple(names[step]) == alike]
    costs = [sum(ends[first + place] - ends[first + place - 1] for first in firsts) / count for place in range(len(alike))]
    return list(_lines(list(alike), costs, num_layers, weights))


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


def _steps(names: list[str]) -> list[slice]:
    """Where each step is, but for the first, whose beginning nobody knows: from one step's last kernel to the next one's.

    That is the last one that runs once a step; the first step may have begun before the profile.
    """
    counts = Counter(names)
    last = next((name for name in reversed(names) if counts[name] in (STEPS, STEPS - 1)), None)
    places = [place + 1 for place, name in enumerate(names) if name == last]
    return [slice(*pair) for pair in pairwise(places)]


def _layers(names: list[str], num_layers: int) -> tuple[int, int]:
    """Where the layers begin in a step, and how many kernels one has; the most that fit."""
    for width in range(len(names) // num_layers, 0, -1):
        for start in range(len(names) - width * num_layers + 1):
            if names[start : start + width * num_layers] == names[start : start + width] * num_layers:
                return start, width
    raise Unsupported("The kernels of a step do not recur once for each layer.")
