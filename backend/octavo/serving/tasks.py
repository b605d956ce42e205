"""``Tasks``: background work of one owner, none of which may fail unheard."""

import asyncio
from collections.abc import Callable, Coroutine
from types import AsyncGeneratorType, CoroutineType, FrameType
from typing import Any


def describe_tasks() -> list[str]:
    """A line for each task of the running event loop: what it waits for, from the outermost call to the innermost."""
    lines = []
    for task in asyncio.all_tasks():
        places: list[str] = []
        waiting: object = task.get_coro()
        while isinstance(waiting, CoroutineType | AsyncGeneratorType) and (frame := _frame(waiting)) is not None:
            places.append(f"{waiting.__qualname__}:{frame.f_lineno}")
            waiting = waiting.cr_await if isinstance(waiting, CoroutineType) else waiting.ag_await
        lines.append(f"task {task.get_name()}: {' > '.join(places) or task.get_coro()}")
    return sorted(lines)


def _frame(waiting: CoroutineType | AsyncGeneratorType) -> FrameType | None:
    return waiting.cr_frame if isinstance(waiting, CoroutineType) else waiting.ag_frame


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
