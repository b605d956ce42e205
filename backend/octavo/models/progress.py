"""Progress of a long load: a bar on a terminal's standard error, a log line elsewhere. Knows no model."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


def track(steps: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield ``steps``, of which there are ``total``, and show how far they are."""
    started = time.monotonic()
    yield from _drawn(steps, total, what) if sys.stderr.isatty() else steps
    log.info("%s: done in %.1f s", what, time.monotonic() - started)


def _drawn(steps: Iterable[T], total: int, what: str) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield from bar.track(steps, total, description=what)
