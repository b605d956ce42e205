"""``FrontEnds``: the supervisor's view of its front ends. Starts them again when they die, and keeps them all of one mind."""

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import msgspec

from octavo.errors import ErrorFrame, OctavoError, internal
from octavo.serving import control
from octavo.serving.backoff import Backoff
from octavo.serving.children import Child
from octavo.serving.control import Call, FrontEndMessage, FrontEndSetup, ModelEntry, Table
from octavo.serving.hub import Hub
from octavo.serving.news import News
from octavo.serving.settings import Settings
from octavo.serving.statistics import Ledger
from octavo.serving.tasks import Tasks

log = logging.getLogger(__name__)
COLLECT_PATIENCE = 2.0
START_PATIENCE = 60.0
EXIT_PATIENCE = 5.0


class FrontEnd:
    """One front-end process. ``holds`` are the engine generations that it was told of and has not released.

    ``told_to_open``: it may listen, as it knows the models.
    ``report``: what it last said when it was looked at. ``asked_at``: when it was first asked for counters that it owes.
    """

    def __init__(self, number: int) -> None:
        """A front end that is about to start."""
        self.number = number
        self.name = f"front-end-{number}"
        self.identity = self.name.encode()
        self.child: Child | None = None
        self.said_hello = self.told_to_open = self.opened = False
        self.applied = self.answered = -1
        self.asked_at: float | None = None
        self.report = control.DebugReport(-1)
        self.holds: set[int] = set()
        self.prepared: dict[int, ErrorFrame | None] = {}


class FrontEnds:
    """All front ends. Every method that waits, waits for those that live: a death never holds anybody up.

    ``call`` answers a client's wish for the repository, ``lost`` hears the process id of one that died with its requests, and
    ``fatal`` is called once when they die too often, ``failed`` for a bug of ours.
    """

    def __init__(
        self,
        hub: Hub[FrontEndMessage],
        program: str,
        setup: FrontEndSetup,
        call: Callable[[Call], Awaitable[control.CallReply]],
        lost: Callable[[int], None],
        fatal: Callable[[str], None],
        failed: Callable[[BaseException], None],
        patience: float,
    ) -> None:
        """Nothing is started yet; each will run ``program``, and ``setup`` is every one's but for its number.

        One that does not answer for ``patience`` seconds is ended, and so is one that does not say hello for a minute.
        """
        self.totals = Ledger()
        self.restarts = 0
        self._hub, self._program, self._setup = hub, program, setup
        self._call, self._lost, self._fatal, self._patience = call, lost, fatal, patience
        self._alive: dict[bytes, FrontEnd] = {}
        self._numbers, self._queries = itertools.count(), itertools.count()
        self._table = Table(0, [], [], ready=False, exiting=False, settings=setup.settings)
        self._open = self._draining = False
        self._news = News()
        self._tasks = Tasks(failed)

    def start(self, count: int) -> None:
        """Start ``count`` front ends and listen to them."""
        self._tasks.start(self._listen())
        for _ in range(count):
            self._tasks.start(self._keep(self._add()))

    def publish(self, models: list[ModelEntry], loads: list[int], ready: bool, exiting: bool, settings: Settings) -> int:
        """Tell all front ends of the models and settings as they are now; the revision that ``applied`` waits for."""
        self._table = Table(self._table.revision + 1, models, loads, ready, exiting, settings)
        for front_end in self._greeted():
            self._send_table(front_end)
        return self._table.revision

    async def applied(self, revision: int) -> None:
        """Wait until every front end acts by this revision."""
        await self._all(lambda front_end: front_end.applied >= revision)

    async def prepare(self, load: int, tokenizer: str) -> None:
        """Have every front end read the tokenizer of a load; raises what one of them could not do."""
        await self._all(lambda front_end: front_end.said_hello)
        asked = set(self._greeted())
        for front_end in asked:
            self._hub.send(front_end.identity, control.Prepare(load, tokenizer))
        await self._all(lambda front_end: front_end not in asked or load in front_end.prepared)
        for front_end in asked:
            error = front_end.prepared.pop(load, None)
            if error is not None:
                raise error.exception()

    async def released(self, generation: int) -> None:
        """Wait until no front end has a request on this engine, nor will have."""
        await self._all(lambda front_end: generation not in front_end.holds)

    def engine_gone(self, generation: int, error: OctavoError) -> None:
        """Fail every request on an engine that died."""
        for front_end in self._greeted():
            front_end.holds.discard(generation)
            self._hub.send(front_end.identity, control.EngineGone(generation, ErrorFrame.of(error)))

    async def open(self) -> None:
        """Let all front ends listen once they know the models, also those that start again.

        Returns when all that live do, and one at least.
        """
        self._open = True
        for front_end in self._greeted():
            self._let_listen(front_end)
        while not (self._alive and all(front_end.opened for front_end in self._alive.values())):
            await self._news.wait()

    async def collect(self) -> None:
        """Add everything that front ends have counted until now to ``totals``."""
        query, asked = next(self._queries), set(self._greeted())
        for front_end in asked:
            front_end.asked_at = front_end.asked_at or time.monotonic()
            self._hub.send(front_end.identity, control.ReadCounters(query))
        try:
            async with asyncio.timeout(COLLECT_PATIENCE):
                await self._all(lambda front_end: front_end not in asked or front_end.answered >= query)
        except TimeoutError:
            log.warning("A front end did not report its counters within %g s.", COLLECT_PATIENCE)
        self._end_silent()

    def _end_silent(self) -> None:
        """A front end answers between two messages. One that is stopped, or hangs, holds its connections for ever.

        One that hangs before its first message holds up all that waits for every front end: loads, and settings.
        """
        starting = max(START_PATIENCE, self._patience)
        for front_end in self._alive.values():
            child = front_end.child
            if child is None or not child.running:
                continue
            since, patience = (front_end.asked_at, self._patience) if front_end.said_hello else (child.started_at, starting)
            if since is not None and time.monotonic() - since > patience:
                log.error("Front end %d has not answered for %g s and is ended.", front_end.number, patience)
                child.signal_kill()

    def processes(self) -> list[FrontEnd]:
        """Those that run."""
        return list(self._alive.values())

    async def look(self) -> None:
        """Have every front end report what is open in it. One that does not answer in time has an empty report."""
        query, asked = next(self._queries), set(self._greeted())
        for front_end in asked:
            front_end.report = control.DebugReport(-1)
            self._hub.send(front_end.identity, control.ReadDebug(query))
        with suppress(TimeoutError):
            async with asyncio.timeout(COLLECT_PATIENCE):
                await self._all(lambda front_end: front_end not in asked or front_end.report.query >= query)

    async def drain(self, seconds: float) -> None:
        """Let open requests go on for ``seconds``, then have all front ends exit, and wait for that."""
        self._draining = True
        for front_end in self._greeted():
            self._hub.send(front_end.identity, control.Drain(seconds))
        children = [front_end.child for front_end in self._alive.values() if front_end.child]
        greeted = {front_end.child for front_end in self._greeted()}
        waiting = {child.exited for child in children if child in greeted}
        if waiting:
            await asyncio.wait(waiting, timeout=seconds + EXIT_PATIENCE)
        await asyncio.gather(*(child.kill() for child in children))

    async def close(self) -> None:
        """End all front ends at once and stop listening to them."""
        self._draining = True
        await self._tasks.cancel()
        await asyncio.gather(*(front_end.child.kill() for front_end in self._alive.values() if front_end.child))
        self._hub.close()

    def _add(self) -> FrontEnd:
        front_end = FrontEnd(next(self._numbers))
        self._alive[front_end.identity] = front_end
        return front_end

    async def _keep(self, front_end: FrontEnd) -> None:
        backoff = Backoff()
        while not self._draining:
            setup = msgspec.json.encode(msgspec.structs.replace(self._setup, number=front_end.number))
            front_end.child = await Child.spawn("front end", self._program, setup)
            await asyncio.wait({front_end.child.exited})
            del self._alive[front_end.identity]
            self._news.tell()
            self._lost(front_end.child.pid)
            if self._draining:
                return
            delay = backoff.died(time.monotonic())
            log.error("Front end %d %s.", front_end.number, front_end.child.describe_exit())
            if delay is None:
                self._fatal("The front ends die too often.")
                return
            await asyncio.sleep(delay)
            self.restarts += 1
            front_end = self._add()

    async def _listen(self) -> None:
        async for identity, message in self._hub.receive():
            front_end = self._alive.get(identity)
            if front_end is not None:
                self._hear(front_end, message)
                self._news.tell()

    def _hear(self, front_end: FrontEnd, message: FrontEndMessage) -> None:
        match message:
            case control.Hello():
                self._greet(front_end)
            case control.Opened():
                front_end.opened = True
            case control.Prepared(load, error):
                front_end.prepared[load] = error
            case control.Applied(revision):
                front_end.applied = max(front_end.applied, revision)
                self._let_listen(front_end)
            case control.Released(generation):
                front_end.holds.discard(generation)
            case control.StopRequests():
                for other in self._greeted():
                    if other is not front_end:
                        self._hub.send(other.identity, message)
            case control.CounterDeltas(query, models):
                front_end.answered = max(front_end.answered, query)
                front_end.asked_at = None
                for model in models:
                    self.totals.of(model.name, model.version).add(model.counters)
            case control.DebugReport():
                front_end.report = message
            case _:
                self._tasks.start(self._answer(front_end, message))

    def _greet(self, front_end: FrontEnd) -> None:
        front_end.said_hello = True
        self._send_table(front_end)

    def _let_listen(self, front_end: FrontEnd) -> None:
        """Once: one that listened before it knows the models would refuse what the others answer."""
        if self._open and front_end.applied >= 0 and not front_end.told_to_open:
            front_end.told_to_open = True
            self._hub.send(front_end.identity, control.Open())

    def _send_table(self, front_end: FrontEnd) -> None:
        engines = (version.engine for model in self._table.models for version in model.versions)
        front_end.holds.update(engine.generation for engine in engines if engine)
        self._hub.send(front_end.identity, self._table)

    async def _answer(self, front_end: FrontEnd, call: Call) -> None:
        try:
            reply = await self._call(call)
        except OctavoError as error:
            reply = control.CallReply(call.call, error=ErrorFrame.of(error))
        except Exception as error:
            reply = control.CallReply(call.call, error=ErrorFrame.of(internal(error, log)))
        self._hub.send(front_end.identity, reply)

    def _greeted(self) -> Iterator[FrontEnd]:
        return (front_end for front_end in self._alive.values() if front_end.said_hello)

    async def _all(self, holds: Callable[[FrontEnd], bool]) -> None:
        while not all(holds(front_end) for front_end in self._alive.values()):
            await self._news.wait()
