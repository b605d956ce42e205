"""CPU time of a process and all its descendants (Linux)."""

import os
from pathlib import Path
from typing import NamedTuple

from octavo.bench.memory import descendants

_TICKS = os.sysconf("SC_CLK_TCK")


class CpuTime(NamedTuple):
    """Seconds of CPU, and those of them that the kernel took."""

    all: float
    kernel: float


def cpu_time(pid: int) -> CpuTime:
    """What ``pid`` and every process below it that still runs have taken."""
    user = kernel = 0
    for process in descendants(pid):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        user += int(fields[11])
        kernel += int(fields[12])
    return CpuTime((user + kernel) / _TICKS, kernel / _TICKS)
