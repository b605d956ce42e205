"""``python -m fuzz --cases N``: both fuzzers at length, each in a process of its own; prints what came of the cases."""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from fuzz.grpc_wire import grpc_wire
from fuzz.http_wire import http_wire
from fuzz.in_process import grpc_messages, http_bodies

BATCH = 50_000
Part = Callable[[int, int], Counter[str]]
PARTS: dict[str, tuple[Part, Part]] = {"grpc": (grpc_messages, grpc_wire), "http": (http_bodies, http_wire)}


def fuzz(name: str, cases: int, share: float, seed: int) -> None:
    """Run ``cases``, a ``share`` of them over the wire, and print how they ended. Raises ``Finding``."""
    in_process, wire = PARTS[name]
    sent = int(cases * share)
    for part, count in ((in_process, cases - sent), (wire, sent)):
        ends, began = Counter[str](), time.monotonic()
        for at, done in enumerate(range(0, count, BATCH)):
            ends += part(min(BATCH, count - done), seed + at)
        seconds = time.monotonic() - began
        print(f"{name}: {ends.total()} cases by {part.__name__} in {seconds:.0f} s, seed {seed}, nothing found")
        print("".join(f"  {number:>9} {end}\n" for end, number in ends.most_common()), end="", flush=True)


def main() -> None:
    """Fuzz what is asked for, two at a time."""
    options = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    options.add_argument("--only", choices=PARTS, help="one of the two")
    options.add_argument("--cases", type=int, default=100_000, help="of each fuzzer")
    options.add_argument("--share", type=float, default=0.1, help="of the cases that go to a real server")
    options.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)), help="the same seed, the same cases")
    asked = options.parse_args()
    names = [asked.only] if asked.only else list(PARTS)
    with ProcessPoolExecutor(max_workers=len(names)) as pool:
        runs = [pool.submit(fuzz, name, asked.cases, asked.share, asked.seed) for name in names]
        failed = [error for run in runs if (error := run.exception()) is not None]
    for error in failed:
        print(f"seed {asked.seed}: {error}", file=sys.stderr)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
