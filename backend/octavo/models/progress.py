"""Progress of a long load: a bar on a terminal's standard error, a log line elsewhere. Knows no model."""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

log = logging.getLogger(__name__)

T = TypeVar("T")


def track(steps: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield ``steps``, of which there are ``total``, and show how far they are."""
    console = Console(stderr=True)
    started = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield from bar.track(steps, total, description=what)
    log.info("%s: done in %.1f s", what, time.monotonic() - started)
