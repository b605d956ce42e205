"""How many cores there are for this process. Knows the system, no engine."""

import os
from pathlib import Path

CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """The cores that this process may run on, at most what its control group grants (a container's CPU limit), rounded up."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = CGROUP_LIMIT.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, -(-int(quota) // int(period))))
