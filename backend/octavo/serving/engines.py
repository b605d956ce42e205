"""Engine processes as the supervisor sees them: started, heard, counted, stopped. Knows nothing of models' states."""

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from octavo.config import EngineConfig
from octavo.engine import control
from octavo.engine.control import EngineReport, EngineSpec
from octavo.engine.messages import EngineInfo, EngineStats, Picture
from octavo.errors import EngineDead, LoadFailed, OctavoError
from octavo.logs import LogSettings
from octavo.serving.children import Child
from octavo.serving.control import Load
from octavo.serving.hub import Hub
from octavo.serving.news import News
from octavo.serving.tasks import Tasks

log = logging.getLogger(__name__)
STATS_PATIENCE = 1.0
LOOK_EVERY = 0.5
SILENCE_PATIENCE = 120.0
LAST_WORDS = 0.5
_DEFAULT_LOGS = LogSettings()


class EngineTotals(msgspec.Struct):
    """What grows for as long as the server runs, over all engine processes of one model version."""

    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    restarts: int = 0


class EngineProcess:
    """One engine process from its start to its exit.

    ``cause`` is what it said was wrong before it died. ``gone`` is set once it has exited and its last words were heard, or was
    given up.
    ``stats`` is its last reading; ``answered`` counts the readings; ``asked_at`` is when it was first asked for one that it owes.
    ``picture`` is its last one; ``owes_picture``: it was asked for another.
    """

    def __init__(self, generation: int, config: EngineConfig, address: str, child: Child) -> None:
        """Wrap a started process; use ``Engines.start``."""
        self.generation, self.config, self.address, self.child = generation, config, address, child
        self.info: EngineInfo | None = None
        self.cause: OctavoError | None = None
        self.gone = asyncio.Event()
        self.stats = EngineStats()
        self.answered = 0
        self.asked_at: float | None = None
        self.picture: Picture | None = None
        self.owes_picture = False

    def why_it_died(self) -> str:
        """A sentence for those who had requests on it; only once it is ``gone``."""
        return str(self.cause) if self.cause else f"Its process {self.child.describe_exit()}."


class Engines:
    """All engine processes, and the one socket on which they report."""

    def __init__(
        self,
        hub: Hub[EngineReport],
        program: str,
        directory: Path,
        failed: Callable[[BaseException], None],
        logs: LogSettings = _DEFAULT_LOGS,
        patience: float = SILENCE_PATIENCE,
    ) -> None:
        """All run ``program``. Sockets go into ``directory``, which must be private; ``failed`` hears of a bug of ours.

        An engine that is ready and does not answer for ``patience`` seconds is ended.
        """
        self._patience = patience
        self._hub, self._program, self._directory, self._logs = hub, program, directory, logs
        self._running: dict[bytes, EngineProcess] = {}
        self._generations = itertools.count(1)
        self._totals: dict[tuple[str, int], EngineTotals] = {}
        self._looking, self._looked_at = asyncio.Lock(), float("-inf")
        self._news = News()
        self._tasks = Tasks(failed)
        self._tasks.start(self._listen())

    async def start(self, config: EngineConfig) -> EngineProcess:
        """Start an engine and wait until it is ready; raises ``LoadFailed`` with its own words."""
        engine = await self._spawn(config)
        try:
            while engine.info is None and not engine.gone.is_set():
                await self._news.wait()
        except asyncio.CancelledError:
            await engine.child.stop()
            raise
        if engine.info is None:
            raise LoadFailed(str(engine.cause) if engine.cause else f"The engine {engine.child.describe_exit()} while it loaded.")
        return engine

    async def check(self, config: EngineConfig) -> None:
        """Have a process of its own look whether the weights are whole, without a device. Raises ``LoadFailed``."""
        engine = await self._spawn(config, check_only=True)
        try:
            await engine.gone.wait()
        finally:
            await engine.child.stop()
        if engine.child.exited.result():
            raise LoadFailed(str(engine.cause) if engine.cause else f"The engine {engine.child.describe_exit()} while it looked.")

    def change_logs(self, logs: LogSettings) -> None:
        """Have every engine log by ``logs`` from now on."""
        self._logs = logs
        for identity in self._running:
            self._hub.send(identity, control.ChangeLogs(logs))

    def front_end_gone(self, pid: int) -> None:
        """Have every engine abort what a dead front end asked for."""
        for identity in self._running:
            self._hub.send(identity, control.FrontEndGone(pid))

    async def collect(self) -> None:
        """Read the statistics of every engine that answers in time."""
        asked = {engine: engine.answered for engine in self._running.values() if engine.info}
        for engine in asked:
            engine.asked_at = engine.asked_at or time.monotonic()
            self._hub.send(_identity(engine.generation), control.StatsQuery())
        if not await self._all(lambda engine: engine not in asked or engine.answered > asked[engine]):
            self._end_silent()

    async def look(self) -> None:
        """Have every engine take a picture, unless that was done a moment ago: what is watched by many is asked for once.

        One that does not answer in time is shown as it was, and is asked no more before it does.
        """
        async with self._looking:
            if time.monotonic() - self._looked_at < LOOK_EVERY:
                return
            self._looked_at = time.monotonic()
            for engine in [engine for engine in self._running.values() if engine.info and not engine.owes_picture]:
                engine.owes_picture = True
                self._hub.send(_identity(engine.generation), control.PictureQuery())
            await self._all(lambda engine: not engine.owes_picture)

    async def _all(self, answered: Callable[[EngineProcess], bool]) -> bool:
        """Wait until every engine that lives has ``answered``; False if that takes too long."""
        try:
            async with asyncio.timeout(STATS_PATIENCE):
                while not all(answered(engine) for engine in self._running.values()):
                    await self._news.wait()
        except TimeoutError:
            log.debug("An engine is in a step that takes longer than %g s.", STATS_PATIENCE)
            return False
        return True

    def _end_silent(self) -> None:
        """An engine between two steps answers at once. One that is stopped, or whose device hangs, holds its requests for ever.

        It is dead for all others from now on: a process that hangs in its device's driver may take long to go, or never do.
        """
        for identity, engine in list(self._running.items()):
            if engine.asked_at is not None and time.monotonic() - engine.asked_at > self._patience:
                engine.cause = engine.cause or EngineDead(f"It has not answered for {self._patience:g} s.")
                engine.child.signal_kill()
                self._forget(identity, engine)

    def processes(self) -> list[EngineProcess]:
        """Those that run, also while they load."""
        return list(self._running.values())

    def totals(self, name: str, version: int) -> EngineTotals:
        """The totals of one model version, zero at first."""
        return self._totals.setdefault((name, version), EngineTotals())

    def load(self) -> Load:
        """How busy all engines were when they were last read."""
        engines = [(engine.stats, engine.info) for engine in self._running.values() if engine.info]
        return Load(
            kv_cache_usage=max((stats.pages_used / info.num_pages for stats, info in engines), default=0.0),
            kv_cache_tokens=sum(info.num_pages * info.page_size for _, info in engines),
            running=sum(stats.running for stats, _ in engines),
            waiting=sum(stats.waiting for stats, _ in engines),
        )

    def levels(self, generation: int) -> EngineStats:
        """The last reading of one engine; zeros once it is gone."""
        engine = self._running.get(_identity(generation))
        return engine.stats if engine else EngineStats()

    def picture(self, generation: int) -> Picture | None:
        """The last picture of one engine, None while there is none."""
        engine = self._running.get(_identity(generation))
        return engine.picture if engine else None

    def page_size(self, generation: int) -> int:
        """Tokens in a page of one engine's cache; 0 while there is none."""
        engine = self._running.get(_identity(generation))
        return engine.info.page_size if engine and engine.info else 0

    async def close(self) -> None:
        """End all engines at once and stop listening to them."""
        await asyncio.gather(*(engine.child.stop() for engine in list(self._running.values())))
        await self._tasks.cancel()
        self._hub.close()

    async def _spawn(self, config: EngineConfig, check_only: bool = False) -> EngineProcess:
        generation = next(self._generations)
        identity = _identity(generation)
        address = f"{self._directory}/{identity.decode()}"
        spec = EngineSpec(
            config=config,
            requests=address,
            control=self._hub.address,
            identity=identity.decode(),
            parent=os.getpid(),
            logs=self._logs,
            check_only=check_only,
        )
        child = await Child.spawn("engine", self._program, msgspec.json.encode(spec))
        engine = self._running[identity] = EngineProcess(generation, config, address, child)
        self._tasks.start(self._bury(identity, engine))
        return engine

    async def _bury(self, identity: bytes, engine: EngineProcess) -> None:
        """Once it has exited, hear what it may have said of the reason, which can arrive a little later."""
        await asyncio.wait({engine.child.exited})
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                while engine.child.exited.result() > 0 and engine.cause is None:
                    await self._news.wait()
        self._forget(identity, engine)

    def _forget(self, identity: bytes, engine: EngineProcess) -> None:
        if self._running.pop(identity, None) is not None:
            Path(engine.address).unlink(missing_ok=True)
            engine.gone.set()
            self._news.tell()

    async def _listen(self) -> None:
        async for identity, report in self._hub.receive():
            engine = self._running.get(identity)
            if engine is not None:
                self._hear(engine, report)
                self._news.tell()

    def _hear(self, engine: EngineProcess, report: EngineReport) -> None:
        match report:
            case control.EngineReady(info):
                engine.info = info
            case control.EngineFailed(error):
                engine.cause = error.exception()
            case control.PictureReply(picture):
                engine.picture, engine.owes_picture = picture, False
            case control.StatsReply(stats):
                self._count(engine, stats)
                engine.answered += 1
                engine.asked_at = None

    def _count(self, engine: EngineProcess, now: EngineStats) -> None:
        totals, before = self.totals(engine.config.name, engine.config.version), engine.stats
        totals.prefix_queries += now.prefix_queries - before.prefix_queries
        totals.prefix_hits += now.prefix_hits - before.prefix_hits
        totals.preemptions += now.preemptions - before.preemptions
        engine.stats = now


def _identity(generation: int) -> bytes:
    return b"engine-%d" % generation
