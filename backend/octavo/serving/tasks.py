"""``Tasks``: background work of one owner, none of which may fail unheard."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Tasks:
    """Running tasks. ``failed`` hears of each that ends with an error, which is a bug of ours."""

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        """Nothing runs yet."""
        self._failed = failed
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` beside everything else."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._end)
        return task

    async def cancel(self) -> None:
        """Cancel all of them and wait until they have ended."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed(error)
