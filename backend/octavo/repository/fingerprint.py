"""``fingerprint``: a value that differs when a model's files do. Reads names, sizes and times, never a file."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from octavo.repository.paths import real_path

Fingerprint = frozenset[tuple[str, int, int]]


def fingerprint(path: Path) -> Fingerprint:
    """(name, size in bytes, time of change in ns) of every file below ``path``, or of ``path`` if it is one.

    Names are those without links, so that a link that leads elsewhere differs, whatever it leads to. What goes while it is
    looked at, or may not be read, is left out. Raises ``OSError`` if ``path`` is not there, or a file system fails: what it did
    not tell must not look like a change.
    """
    return frozenset(_files(str(real_path(path))))


def _files(path: str) -> Iterator[tuple[str, int, int]]:
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        if not os.path.isdir(path):
            yield from _file(path)
            return
        with os.scandir(path) as entries:
            for entry in entries:
                # A link may lead out of the repository, or in a circle: what it leads to counts, but not what is below.
                yield from _files(entry.path) if entry.is_dir(follow_symlinks=False) else _file(entry.path)


def _file(path: str) -> Iterator[tuple[str, int, int]]:
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        status = os.stat(path)
        yield os.path.realpath(path), status.st_size, status.st_mtime_ns
