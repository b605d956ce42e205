"""``python -m fuzz --cases N``: all fuzzers at length, each in a process of its own; prints what came of the cases."""

import argparse
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from fuzz.at_length import PARTS, fuzz


def main() -> None:
    """Fuzz what is asked for, all at once."""
    options = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    options.add_argument("--only", choices=PARTS, help="one of them")
    options.add_argument("--cases", type=int, default=100_000, help="of each fuzzer")
    options.add_argument("--share", type=float, default=0.1, help="of the cases that go to a real server")
    options.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)), help="the same seed, the same cases")
    asked = options.parse_args()
    names = [asked.only] if asked.only else list(PARTS)
    # gRPC does not outlive a fork.
    with ProcessPoolExecutor(max_workers=len(names), mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = [pool.submit(fuzz, name, asked.cases, asked.share, asked.seed) for name in names]
        failed = [error for run in runs if (error := run.exception()) is not None]
    for error in failed:
        print(f"seed {asked.seed}: {error}", file=sys.stderr)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
