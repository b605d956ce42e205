"""One fuzzer at length: so many cases in batches, some in one process and some over the wire, and what came of them."""

import time
from collections import Counter
from collections.abc import Callable
from functools import partial

from fuzz.grpc_wire import grpc_wire
from fuzz.http2_frames import http2_frames
from fuzz.http_wire import http_wire
from fuzz.in_process import grpc_messages, http_bodies
from fuzz.wire import WirePart, over_the_wire

BATCH = 50_000
Part = Callable[[int, int], Counter[str]]
# What runs in one process and what over the wire; damaged frames go over it with the messages of gRPC.
PARTS: dict[str, tuple[Part, WirePart | None]] = {
    "grpc": (grpc_messages, grpc_wire),
    "http": (http_bodies, http_wire),
    "http2": (http2_frames, None),
}


def fuzz(name: str, cases: int, share: float, seed: int) -> None:
    """Run ``cases``, a ``share`` of them over the wire, and print how they ended. Raises ``Finding``."""
    in_process, wire = PARTS[name]
    sent = int(cases * share) if wire is not None else 0
    runs: list[tuple[str, Part, int]] = [(in_process.__name__, in_process, cases - sent)]
    if wire is not None:
        runs.append((wire.__name__, partial(over_the_wire, wire), sent))
    for called, part, count in runs:
        ends, began = Counter[str](), time.monotonic()
        for at, done in enumerate(range(0, count, BATCH)):
            ends += part(min(BATCH, count - done), seed + at)
        seconds = time.monotonic() - began
        print(f"{name}: {ends.total()} cases by {called} in {seconds:.0f} s, seed {seed}, nothing found")
        print("".join(f"  {number:>9} {end}\n" for end, number in ends.most_common()), end="", flush=True)
