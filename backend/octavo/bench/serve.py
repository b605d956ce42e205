"""A whole server under streaming load: start to ready, memory of all its processes, tokens per second, TTFT and gaps."""

import asyncio
import random
import signal
import string
import subprocess
import sys
import time
from pathlib import Path

from octavo.bench.load import RequestTiming, run_load, wait_until_ready
from octavo.bench.memory import PeakMemory
from octavo.bench.report import Row, percentile
from octavo.serving.ports import Reservation

_READY_TIMEOUT = 600.0


def run(repository: Path, model: str, lanes: int, requests: int, words: int, output_len: int) -> list[Row]:
    """Start a server on ``repository``, load it with ``requests`` streams, ``lanes`` at a time, and stop it."""
    with Reservation("gRPC", "127.0.0.1", 0) as reservation:
        port = reservation.port
    command = [
        sys.executable,
        "-m",
        "octavo",
        "serve",
        "--model-repository",
        str(repository),
        "--grpc-address",
        "127.0.0.1",
        "--grpc-port",
        str(port),
    ]
    start = time.perf_counter()
    server = subprocess.Popen([*command, "--http-port", "0", "--metrics-port", "0"], stdout=subprocess.DEVNULL)
    memory = PeakMemory(server.pid)
    memory.start()
    try:
        address = f"127.0.0.1:{port}"
        asyncio.run(wait_until_ready(address, _READY_TIMEOUT))
        ready = time.perf_counter() - start
        rows = loaded_rows(address, model, lanes, requests, words, output_len)
    finally:
        peak = memory.stop()
        server.send_signal(signal.SIGTERM)
        server.wait()
    start_rows = [
        Row("start to ready", ready, "s", None, "<= 15"),
        Row("peak memory, all processes (summed PSS)", peak / 1e9, "GB", None, "<= 1.8"),
    ]
    return [*start_rows, *rows]


def loaded_rows(address: str, model: str, lanes: int, requests: int, words: int, output_len: int) -> list[Row]:
    """Load the server at ``address`` and give its rates and times."""
    rng = random.Random(0)
    prompts = [_text(rng, words) for _ in range(requests)]
    asyncio.run(run_load(address, model, prompts[:1], 1, 4))
    start = time.perf_counter()
    timings = asyncio.run(run_load(address, model, prompts, lanes, output_len))
    return _rows(timings, time.perf_counter() - start, lanes)


def _rows(timings: list[RequestTiming], seconds: float, lanes: int) -> list[Row]:
    firsts = [timing.first * 1e3 for timing in timings]
    gaps = [gap * 1e3 for timing in timings for gap in timing.gaps]
    return [
        Row(f"{lanes} lanes: output", sum(timing.tokens for timing in timings) / seconds, "tok/s"),
        *(Row(f"{lanes} lanes: time to first token, p{round(100 * q)}", percentile(firsts, q), "ms") for q in (0.5, 0.99)),
        *(Row(f"{lanes} lanes: gap between messages, p{round(100 * q)}", percentile(gaps, q), "ms") for q in (0.5, 0.99)),
    ]


def _text(rng: random.Random, words: int) -> str:
    return "".join(" " + "".join(rng.choices(string.ascii_lowercase, k=4)) for _ in range(words))
