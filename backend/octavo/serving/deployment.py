"""``Deployment``: one loaded version of a model, which keeps an engine running until it is retired."""

import asyncio
import logging
import time
from typing import Protocol

from octavo.engine.messages import EngineInfo
from octavo.errors import Draining, EngineDead, LoadFailed, OctavoError
from octavo.repository.repository import ModelSpec
from octavo.serving.backoff import Backoff
from octavo.serving.control import EngineBinding
from octavo.serving.engines import EngineProcess, Engines

log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Who hears of an engine's deaths."""

    def engine_died(self, generation: int, error: OctavoError) -> None:
        """The engine has died; its requests end with ``error``."""

    def engine_back(self) -> None:
        """An engine that had died runs again."""

    def failed(self, error: BaseException) -> None:
        """A bug of ours has left an engine without anybody who watches it."""

    def gave_up(self, reason: str) -> None:
        """An engine died too often to be started again."""


class Deployment:
    """One load of one version. ``binding`` is None while its engine is dead, and ``failure`` then says why it died."""

    def __init__(self, engines: Engines, spec: ModelSpec, load: int, watcher: Watcher) -> None:
        """Nothing runs yet; ``load`` numbers the load that this belongs to."""
        self.spec, self.load = spec, load
        self._engines, self._watcher = engines, watcher
        self.binding: EngineBinding | None = None
        self.failure: OctavoError | None = None
        self._process: EngineProcess | None = None
        self._backoff = Backoff()
        self._created = int(time.time())
        self._retired = False
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the engine and wait until it is ready; raises ``LoadFailed``."""
        await self._launch()
        self._keeper = asyncio.ensure_future(self._keep())
        self._keeper.add_done_callback(self._check_keeper)

    @property
    def info(self) -> EngineInfo | None:
        """What its engine has said of itself, None while there is none."""
        return self._process.info if self._process is not None else None

    def retire(self) -> None:
        """From now on a dead engine stays dead."""
        self._retired = True

    def pause(self) -> None:
        """Take no new requests while something else is to take its place; from now on a dead engine stays dead."""
        self.retire()
        self.binding = None
        self.failure = Draining(f"Model '{self.spec.name}' is being replaced; the same request can be answered once that is done.")

    async def stop(self) -> None:
        """End the engine, whatever it does."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        if self._process is not None:
            await self._process.child.stop()

    async def _launch(self) -> None:
        spec = self.spec
        started = time.monotonic()
        self._process = process = await self._engines.start(spec.engine)
        assert process.info is not None
        self.binding = EngineBinding(
            process.generation,
            self.load,
            process.address,
            spec.engine.tokenizer,
            process.info,
            self._created,
            spec.engine.tool_call_parser,
            spec.engine.reasoning_parser,
        )
        self.failure = None
        log.info("Model %s version %d is ready after %.1f s.", spec.name, spec.version, time.monotonic() - started)

    async def _keep(self) -> None:
        while self._process is not None:
            process = self._process
            await process.gone.wait()
            self._mourn(process)
            await process.child.kill()  # one that was given up holds its device until it has exited
            if self._retired or not await self._revive():
                return
            self._watcher.engine_back()

    def _check_keeper(self, keeper: asyncio.Task[None]) -> None:
        error = None if keeper.cancelled() else keeper.exception()
        if error is not None:
            self._watcher.failed(error)

    def _mourn(self, process: EngineProcess) -> None:
        self.binding = None
        self.failure = EngineDead(f"The engine of model '{self.spec.name}' has died. {process.why_it_died()}")
        log.error("%s", self.failure)
        self._watcher.engine_died(process.generation, self.failure)

    async def _revive(self) -> bool:
        while (delay := self._backoff.died(time.monotonic())) is not None:
            await asyncio.sleep(delay)
            if self._retired:
                return False
            self._engines.totals(self.spec.name, self.spec.version).restarts += 1
            try:
                await self._launch()
            except (LoadFailed, OSError) as error:
                log.error("Model %s version %d could not be started again: %s", self.spec.name, self.spec.version, error)
            else:
                return True
        self._watcher.gave_up(f"The engine of model '{self.spec.name}' dies too often.")
        return False
