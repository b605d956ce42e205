"""Where the time from a process's start to its first token goes. Knows which logger says that weights are there, no model."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

_WEIGHTS_LOG = "octavo.models.loader"
T = TypeVar("T")


class StartUp(msgspec.Struct, frozen=True):
    """Seconds. ``imports``: from the process's start until the engine begins to load, ``cache_and_graphs``: until it is ready."""

    imports: float
    weights: float
    cache_and_graphs: float
    first_token: float

    @property
    def seconds(self) -> float:
        """From the process's start to the first token."""
        return sum(msgspec.structs.astuple(self))


def process_seconds() -> float:
    """Since this process was started (Linux)."""
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def timed_start(load: Callable[[], T], first_token: Callable[[T], object]) -> tuple[T, StartUp]:
    """Run ``load`` and then ``first_token`` on what it made, and take the time of their parts."""
    weights = _FirstRecord()
    logger = logging.getLogger(_WEIGHTS_LOG)
    level = logger.level
    logger.addHandler(weights)
    logger.setLevel(logging.INFO)
    begin = process_seconds()
    try:
        engine = load()
    finally:
        logger.removeHandler(weights)
        logger.setLevel(level)
    ready = process_seconds()
    first_token(engine)
    loaded = ready if weights.at is None else weights.at
    return engine, StartUp(begin, loaded - begin, ready - loaded, process_seconds() - ready)


class _FirstRecord(logging.Handler):
    """Notes when it first hears anything."""

    at: float | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.at is None:
            self.at = process_seconds()
