"""``python -m octavo_kernels.bench``: time of each kernel at a model's shapes, beside what the device can copy and multiply.

Knows no server. On CUDA the calls are replayed from a graph, so launch overhead does not count, and caches are walked layer by
layer through a pool larger than the L2 cache.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from math import prod
from typing import NamedTuple

import torch

from octavo_kernels import for_device

_BEYOND_CACHES = 1 << 28  # bytes: several times an H200's L2 cache


class Shape(NamedTuple):
    """What of a decoder the kernels see."""

    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    page_size: int
    layers: int


class Result(NamedTuple):
    """One measurement: microseconds a call, and the rate of what bounds it (GB/s, or TFLOP/s) with its share of the ceiling."""

    kernel: str
    case: str
    microseconds: float
    rate: float
    unit: str
    of_ceiling: float


SHAPES = {
    "smollm2-135m": Shape(576, 1536, 9, 3, 64, 49_152, 16, 4),
    "llama-3.2-1b": Shape(2048, 8192, 32, 8, 64, 128_256, 64, 4),
    "llama-3.1-8b": Shape(4096, 14_336, 32, 8, 128, 128_256, 64, 4),
}

# Rows and tokens of each.
DECODES = (
    *((1, 128), (1, 512), (1, 8192), (1, 100_000), (8, 512), (8, 32_768), (32, 8192)),
    *((64, 1024), (256, 512), (512, 192), (1024, 192)),
)
# Rows, queries of each and tokens of each with them.
PREFILLS = (
    *((1, 1024, 1024), (1, 4096, 4096), (1, 8192, 8192), (1, 16_384, 16_384)),
    *((8, 1024, 1024), (64, 128, 128), (1, 512, 32_768), (1, 16, 32_768)),
)


class Bench:
    """Builds inputs on one device and times kernels there."""

    def __init__(self, device: torch.device, shape: Shape) -> None:
        """Measure the device's ceilings: copying in GB/s, multiplying matrices in TFLOP/s (bfloat16; on a CPU float32)."""
        self.device, self.shape, self.kernels = device, shape, for_device(device)
        side = 8192 if device.type == "cuda" else 512
        block = self.random(side, side, 8)
        copy = torch.empty_like(block)
        square = self.random(side, side).to(torch.bfloat16 if device.type == "cuda" else torch.float32)
        # A kernel copies: a captured copy_ becomes a memcpy node, which reached 2.7 of an H200's 4.3 TB/s.
        self.copy_rate = 2 * block.nbytes / self.seconds(lambda: torch.neg(block, out=copy)) / 1e9
        self.flop_rate = 2 * side**3 / self.seconds(lambda: square @ square) / 1e12

    def random(self, *size: int) -> torch.Tensor:
        """Normal bfloat16 numbers."""
        return torch.randn(size, device=self.device, dtype=torch.bfloat16)

    def whole(self, *values: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        """Integers on the device."""
        return torch.tensor(values, device=self.device, dtype=dtype)

    def seconds(self, call: Callable[[], object]) -> float:
        """The shortest of several runs of ``call``."""
        call()
        if self.device.type != "cuda":
            return min(self._wall(call) for _ in range(7))
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(5):
                call()
        return min(self._wall(graph.replay) for _ in range(7)) / 5

    def _wall(self, call: Callable[[], object]) -> float:
        if self.device.type != "cuda":
            start = time.perf_counter()
            call()
            return time.perf_counter() - start
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        call()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3

    def moved(self, kernel: str, case: str, seconds: float, bytes_moved: float) -> Result:
        """A result bounded by memory."""
        rate = bytes_moved / seconds / 1e9
        return Result(kernel, case, seconds * 1e6, rate, "GB/s", rate / self.copy_rate)

    def computed(self, kernel: str, case: str, seconds: float, operations: float) -> Result:
        """A result bounded by arithmetic."""
        rate = operations / seconds / 1e12
        return Result(kernel, case, seconds * 1e6, rate, "TFLOP/s", rate / self.flop_rate)

    def pool(self, tokens: int) -> torch.Tensor:
        """A cache [page, layer, 2, head, token, dim] with room for ``tokens``, of up to 32 layers if they are small."""
        shape = self.shape
        pages = -(-tokens // shape.page_size)
        layer = (pages, 2, shape.kv_heads, shape.page_size, shape.head_dim)
        layers = max(shape.layers, min(32, _BEYOND_CACHES // (2 * prod(layer)))) if self.device.type == "cuda" else shape.layers
        return self.random(pages, layers, *layer[1:])


def glue(bench: Bench, tokens: int) -> Iterator[Result]:
    """The kernels between the matrix products, for one step of ``tokens`` tokens."""
    shape, kernels, case = bench.shape, bench.kernels, f"{tokens} tokens"
    x, weight = bench.random(tokens, shape.hidden), bench.random(shape.hidden)
    yield bench.moved("rmsnorm", case, bench.seconds(lambda: kernels.rmsnorm(x, weight, 1e-5)), 2 * x.nbytes)
    gate_up = bench.random(tokens, 2 * shape.ffn)
    yield bench.moved("swiglu", case, bench.seconds(lambda: kernels.swiglu(gate_up)), 1.5 * gate_up.nbytes)
    qkv = bench.random(tokens, (shape.heads + 2 * shape.kv_heads) * shape.head_dim)
    kv, place = bench.pool(tokens)[:, 0], torch.arange(tokens, device=bench.device)
    angles = torch.rand(tokens, shape.head_dim, device=bench.device)
    seconds = bench.seconds(lambda: kernels.rope_cache(qkv, place, angles, place, kv, shape.heads, shape.kv_heads))
    yield bench.moved("rope_cache", case, seconds, 2 * qkv.nbytes)


def decode(bench: Bench, lengths: list[int], case: str) -> Result:
    """Attention of one query a row, over every layer of a pool, with the plan that they share."""
    shape, kernels = bench.shape, bench.kernels
    width = -(-max(lengths) // shape.page_size)
    pages = [-(-length // shape.page_size) for length in lengths]
    pool = bench.pool(sum(pages) * shape.page_size)
    table = torch.zeros(len(lengths), width, dtype=torch.int32)
    shuffled = torch.randperm(sum(pages), dtype=torch.int32)
    for row, own in enumerate(shuffled.split(pages)):
        table[row, : len(own)] = own
    table, q = table.to(bench.device), bench.random(len(lengths), shape.heads, shape.head_dim)
    context = bench.whole(*lengths)

    def every_layer() -> None:
        plan = kernels.plan_decode(context, shape.kv_heads)
        for layer in range(pool.shape[1]):
            kernels.paged_decode(q, pool[:, layer], table, context, shape.head_dim**-0.5, plan)

    read = 2 * sum(lengths) * shape.kv_heads * shape.head_dim * q.element_size()
    return bench.moved("paged_decode", case, bench.seconds(every_layer) / pool.shape[1], read)


def prefill(bench: Bench, rows: int, queries: int, context: int) -> Result:
    """Causal attention of the last ``queries`` of ``context`` tokens of each row."""
    shape, pages = bench.shape, -(-context // bench.shape.page_size)
    kv = bench.pool(rows * pages * shape.page_size)[:, 0]
    table = torch.arange(rows * pages, device=bench.device, dtype=torch.int32).view(rows, pages)
    q, starts = bench.random(rows * queries, shape.heads, shape.head_dim), bench.whole(*range(0, (rows + 1) * queries, queries))
    lengths = bench.whole(*[context] * rows)
    plan = bench.kernels.plan_prefill(starts, lengths, rows * queries, shape.heads, shape.kv_heads, shape.head_dim)
    scale = shape.head_dim**-0.5
    seconds = bench.seconds(lambda: bench.kernels.paged_prefill(q, kv, table, starts, lengths, queries, scale, plan))
    pairs = rows * (queries * (context - queries) + queries * (queries + 1) / 2)
    case = f"{rows} x {queries} of {context}"
    return bench.computed("paged_prefill", case, seconds, 4 * pairs * shape.heads * shape.head_dim)


def draw(bench: Bench, rows: int, temperature: float, top_k: int, top_p: float, case: str, spread: float = 3) -> Result:
    """One token a row from normal logits: with a spread of 3, most of the mass is on few tokens, as in a trained model."""
    logits = torch.randn(rows, bench.shape.vocabulary, device=bench.device) * spread

    def column(value: float, dtype: torch.dtype) -> torch.Tensor:
        return torch.full((rows,), value, device=bench.device, dtype=dtype)

    whole, real = torch.int32, torch.float32
    options = column(temperature, real), column(top_k, whole), column(top_p, real), column(0, real)
    keys = column(1, torch.int64), column(0, whole), column(9, torch.int64)
    return bench.moved(
        "sample", f"{rows} rows, {case}", bench.seconds(lambda: bench.kernels.sample(logits, *options, *keys)), logits.nbytes
    )


def measure(bench: Bench) -> Iterator[Result]:
    """Every kernel at a few sizes, smaller ones on a CPU."""
    big = bench.device.type == "cuda"
    for tokens in (1, 64, 8192) if big else (1, 8, 128):
        yield from glue(bench, tokens)
    for rows, length in DECODES if big else ((1, 128), (8, 128), (8, 512)):
        yield decode(bench, [length] * rows, f"{rows} x {length}")
    if big:
        yield decode(bench, [32_768, *[512] * 63], "1 x 32768 and 63 x 512")
        yield decode(bench, [100 + 3900 * row // 127 for row in range(128)], "128 x 100 to 4000")
    for rows, queries, context in PREFILLS if big else ((1, 128, 128), (2, 32, 512)):
        yield prefill(bench, rows, queries, context)
    for rows in (1, 64, 256) if big else (1, 8):
        yield draw(bench, rows, 0, 0, 1, "greedy")
        yield draw(bench, rows, 1, 0, 1, "temperature")
        yield draw(bench, rows, 0.8, 50, 0.95, "top-k 50, top-p 0.95")
        yield draw(bench, rows, 0.8, 0, 0.9, "top-p 0.9")
        yield draw(bench, rows, 1, 0, 0.9, "top-p 0.9, flat", spread=1)


def main() -> None:
    """Print a table and, if asked, write the same as JSON."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(prog="python -m octavo_kernels.bench", description="Time the kernels at a model's shapes.")
    parser.add_argument("--model", choices=SHAPES, default="llama-3.1-8b" if cuda else "smollm2-135m")
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--json", help="a file to write the results to")
    arguments = parser.parse_args()
    bench = Bench(torch.device(arguments.device), SHAPES[arguments.model])
    print(f"{arguments.model} on {arguments.device}: copies {bench.copy_rate:.0f} GB/s, multiplies {bench.flop_rate:.1f} TFLOP/s")
    results = []
    for result in measure(bench):
        results.append(result)
        rate = f"{result.rate:9.1f} {result.unit}" if result.rate >= 1 else f"{result.rate:9.4f} {result.unit}"
        print(f"{result.kernel:14} {result.case:28} {result.microseconds:10.1f} us {rate:17} {result.of_ceiling:6.1%}", flush=True)
    if arguments.json:
        ceilings = {"model": arguments.model, "copy_gb_s": bench.copy_rate, "matmul_tflop_s": bench.flop_rate}
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(ceilings | {"results": [result._asdict() for result in results]}, file, indent=1)


if __name__ == "__main__":
    main()
