"""``EngineThread``: an ``OfflineEngine`` in a thread and event loop of its own, for callers that have none or block theirs."""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import CancelledError, Future
from contextlib import aclosing, suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from octavo.config import EngineConfig
from octavo.errors import EngineDead
from octavo.offline.engine import OfflineEngine

Item = TypeVar("Item")
_END = object()
_SHUT_DOWN = "The engine has been shut down."


class EngineThread:
    """A running engine. Must be closed; the thread is a daemon's, so a forgotten one does not hold up the interpreter's end."""

    def __init__(self, config: EngineConfig) -> None:
        """Start, and wait until the engine is ready; raises ``LoadFailed``. Whatever interrupts the wait ends the engine too."""
        self._owner = os.getpid()
        self._ready: Future[OfflineEngine] = Future()
        # Whoever asks before ``_ending`` is set has a task that ends with the loop; nobody asks afterwards.
        self._asking, self._ending = threading.Lock(), False
        self._loop = asyncio.new_event_loop()
        self._main = self._loop.create_task(self._serve(config))
        self._thread = threading.Thread(target=self._run, name="octavo", daemon=True)
        self._thread.start()
        try:
            self.engine = self._ready.result()
        except BaseException:
            self.close()
            raise

    def iterate(self, items: Callable[[], AsyncGenerator[Item]]) -> Generator[Item]:
        """What ``items()`` yields in the engine's loop, here. It is cancelled if nobody reads on, also after Ctrl-C."""
        arrived: SimpleQueue[Any] = SimpleQueue()
        with self._asking:
            if self._ending or not self._thread.is_alive():
                raise EngineDead(_SHUT_DOWN)
            forwarding = asyncio.run_coroutine_threadsafe(_forward(items, arrived), self._loop)
        forwarding.add_done_callback(lambda _: arrived.put(_END))  # also of a task that was cancelled before it began
        try:
            while (item := arrived.get()) is not _END:
                yield item
            forwarding.result()
        except CancelledError:
            raise EngineDead(_SHUT_DOWN) from None
        finally:
            forwarding.cancel()

    def close(self) -> None:
        """End the engine, and wait until its process is gone. In a forked child, whose engine it is not, nothing happens."""
        if os.getpid() != self._owner or not self._thread.is_alive():
            return
        with suppress(RuntimeError):  # the loop has been closed in the meantime
            self._loop.call_soon_threadsafe(self._main.cancel)
        if threading.current_thread() is not self._thread:  # the garbage collector may call from anywhere
            self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.run_until_complete(_end_tasks())
            self._loop.close()

    async def _serve(self, config: EngineConfig) -> None:
        engine = OfflineEngine(config)
        try:
            await engine.start()
            self._ready.set_result(engine)
            await asyncio.get_running_loop().create_future()
        except Exception as error:
            self._ready.set_exception(error)
        finally:
            with self._asking:
                self._ending = True
            await engine.close()


async def _forward(items: Callable[[], AsyncGenerator[Item]], arrived: "SimpleQueue[Any]") -> None:
    async with aclosing(items()) as stream:
        async for item in stream:
            arrived.put(item)


async def _end_tasks() -> None:
    """Cancel whatever else runs in this loop, and let it clean up."""
    await asyncio.sleep(0)  # what another thread has just asked for becomes a task
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
