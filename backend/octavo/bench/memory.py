"""Memory of a process and all its descendants: proportional set size, which counts shared pages once (Linux)."""

import os
import re
import threading
from pathlib import Path

_PSS = re.compile(rb"^Pss:\s+(\d+) kB", re.MULTILINE)


def descendants(pid: int) -> list[int]:
    """``pid`` and every process below it."""
    found = [pid]
    for parent in found:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                found += [int(child) for child in Path(f"/proc/{parent}/task/{task}/children").read_text().split()]
        except OSError:
            continue
    return found


def pss_bytes(pid: int) -> int:
    """Summed proportional set size of ``pid`` and its descendants, in bytes; processes that end meanwhile count nothing."""
    total = 0
    for process in descendants(pid):
        try:
            match = _PSS.search(Path(f"/proc/{process}/smaps_rollup").read_bytes())
        except OSError:
            continue
        total += int(match.group(1)) * 1024 if match else 0
    return total


class PeakMemory(threading.Thread):
    """Samples ``pss_bytes`` of a process tree until stopped; ``peak`` is the highest reading, in bytes."""

    def __init__(self, pid: int, interval: float = 0.1) -> None:
        """Watch ``pid``, reading every ``interval`` seconds."""
        super().__init__(daemon=True)
        self._pid, self._interval, self._done = pid, interval, threading.Event()
        self.peak = 0

    def run(self) -> None:
        """Read until ``stop`` is called."""
        while not self._done.wait(self._interval):
            self.peak = max(self.peak, pss_bytes(self._pid))

    def stop(self) -> int:
        """End the sampling and return the peak."""
        self._done.set()
        self.join()
        return self.peak
