"""``fingerprint``: a value that differs when a model's files do. Reads names, sizes and times, never a file."""

import os
from collections.abc import Iterator
from pathlib import Path

Fingerprint = frozenset[tuple[str, int, int]]


def fingerprint(path: Path) -> Fingerprint:
    """(name, size in bytes, time of change in ns) of every file below ``path``, or of ``path`` if it is one."""
    return frozenset(_files(os.fspath(path)))


def _files(path: str) -> Iterator[tuple[str, int, int]]:
    try:
        if os.path.isdir(path):
            with os.scandir(path) as entries:
                for entry in entries:
                    # A link may lead out of the repository, or in a circle: what it leads to counts, but not what is below.
                    yield from _files(entry.path) if entry.is_dir(follow_symlinks=False) else _file(entry.path)
        else:
            yield from _file(path)
    except OSError:
        return


def _file(path: str) -> Iterator[tuple[str, int, int]]:
    status = os.stat(path)
    yield path, status.st_size, status.st_mtime_ns
