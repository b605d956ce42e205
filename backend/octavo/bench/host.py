"""``octavo bench host``: what the engine's own Python takes of a step. Knows a scheduler, no model and no socket."""

import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import msgspec
import numpy as np

from octavo.bench.report import Row
from octavo.config import EngineConfig, WeightsFormat
from octavo.engine.messages import EngineInfo, EngineRequest
from octavo.engine.scheduler import Scheduler
from octavo.engine.step import StepInput, StepOutput
from octavo.sampling import SamplingParams

PAGE_SIZE, VOCABULARY, END = 64, 128_256, 128_001
SETTLING = 40  # steps until everybody decodes and has told of a first token
PARTS = ("schedule", "update", "frame")
GOALS = {256: "≤ 150", 1024: "≤ 400"}  # for all of the host's work on a step


def run(row_counts: Sequence[int], steps: int) -> list[Row]:
    """Each part's CPU time, in microseconds a step, for so many decoding requests; medians over ``steps``."""
    rows = []
    for count in row_counts:
        parts = measure(count, steps)
        total = [sum(times) for times in zip(*parts.values(), strict=True)]
        rows += [Row(f"{count} rows: {part}", median(times) / 1e3, "µs") for part, times in parts.items()]
        rows.append(Row(f"{count} rows: all", median(total) / 1e3, "µs", goal=GOALS.get(count, "")))
    return rows


def measure(count: int, steps: int) -> dict[str, list[int]]:
    """The CPU time of each of ``PARTS`` in each of ``steps`` steps of ``count`` decodes, in nanoseconds.

    One step is in flight while the next is planned, as on a GPU, and every row takes a page in turn.
    """
    scheduler, encoder = _busy(count, SETTLING + steps), msgspec.msgpack.Encoder()
    tokens = np.random.default_rng(1).integers(0, END, count + SETTLING + steps)
    parts: dict[str, list[int]] = defaultdict(list)
    before = _planned(scheduler)
    for turn in range(SETTLING + steps):
        start = time.thread_time_ns()
        planned = _planned(scheduler)
        scheduled = time.thread_time_ns()
        output = StepOutput(np.where(before.samples, tokens[turn : turn + len(before.rows)], -1)[:, None], {}, {})
        began = time.thread_time_ns()
        scheduler.update(before, output)
        updated = time.thread_time_ns()
        for frame in scheduler.collect().values():
            encoder.encode(frame)
        ends = [began, updated, time.thread_time_ns()]
        if turn >= SETTLING:
            for part, taken in zip(PARTS, [scheduled - start, *(end - at for at, end in pairwise(ends))], strict=True):
                parts[part].append(taken)
        before = planned
    return parts


def _planned(scheduler: Scheduler) -> StepInput:
    step = scheduler.schedule(0.0)
    assert step is not None
    return step


def _busy(count: int, steps: int) -> Scheduler:
    """A scheduler that has ``count`` requests for longer than ``steps``; their prompts end all over a page."""
    longest = 3 * PAGE_SIZE + steps + count
    info = EngineInfo(
        max_model_len=longest,
        vocab_size=VOCABULARY,
        page_size=PAGE_SIZE,
        num_pages=(count + 1) * -(-longest // PAGE_SIZE),
        dtype="none",
        eos_token_ids=[END],
        weights_bytes=0,
        max_logprobs=0,
    )
    config = EngineConfig(
        name="bench", version=1, weights="", weights_format=WeightsFormat.DUMMY, tokenizer="",
        max_num_seqs=count, max_num_batched_tokens=8192, max_queue_size=count,
    )  # fmt: skip
    scheduler, random = Scheduler(config, info), np.random.default_rng(0)
    for number in range(count):
        prompt = random.integers(0, END, PAGE_SIZE + number % PAGE_SIZE).tolist()
        scheduler.submit(b"bench", EngineRequest(number, prompt, SamplingParams(seed=number, max_tokens=None)), 0.0)
    return scheduler
