"""The front-end process: ``python -m octavo.serving.frontend`` with a ``FrontEndSetup`` as JSON on its standard input.

Speaks gRPC and HTTP with clients and token ids with engines. Holds no truth: what it knows of models its supervisor told it.
"""

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import uvloop
import zmq

from octavo.engine.lifeline import die_with_parent, name_process
from octavo.engine.stacks import write_stacks_on_signal
from octavo.errors import ErrorFrame, OctavoError, internal
from octavo.logs import change_logs, configure_logs
from octavo.serving import control
from octavo.serving.control import FrontEndSetup, ModelCounters, SupervisorMessage
from octavo.serving.grpc.server import grpc_server
from octavo.serving.http.app import http_app
from octavo.serving.http.listen import HttpServer
from octavo.serving.http2.server import Server
from octavo.serving.link import Link
from octavo.serving.models import Models
from octavo.serving.ports import listener
from octavo.serving.settings import Settings
from octavo.serving.tasks import Tasks, describe_tasks
from octavo.serving.traffic import Traffic

if TYPE_CHECKING:
    from octavo.serving.tracing import Tracing

log = logging.getLogger(__name__)
LAST_WRITES, LAST_FLUSH = 1.0, 0.1
LAST_WORDS_MS = 1000
LAST_TRACES = 3.0


class FrontEnd:
    """One front end from its start to its exit."""

    def __init__(self, setup: FrontEndSetup) -> None:
        """Nothing listens yet."""
        self._setup = setup
        self._link = Link(setup.control, setup.number, setup.patience)
        self._models = Models(
            released=lambda generation: self._link.send(control.Released(generation)),
            stopped=lambda *which: self._link.send(control.StopRequests(*which)),
            limits=setup.limits,
        )
        self._tracing = _tracing(setup.settings, self._count_trace)
        self._models.tracing = self._tracing
        self._traffic = Traffic()
        self._grpc: Server | None = None
        self._http: HttpServer | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks = Tasks(self._fail)

    async def run(self) -> None:
        """Do what the supervisor says until it says to drain, and that is done. Raises what went wrong."""
        self._link.send(control.Hello())
        self._tasks.start(self._listen())
        try:
            await self._ended
        finally:
            self._link.close()
            zmq.Context.instance().destroy(linger=LAST_WORDS_MS)

    async def _listen(self) -> None:
        async for message in self._link.receive():
            match message:
                case control.EngineGone(generation, error):
                    self._models.engine_gone(generation, error.exception())
                case control.StopRequests(model, request_id, owner):
                    self._models.stop_here(model, request_id, owner)
                case control.ReadCounters(query):
                    self._report(query)
                case control.ReadDebug(query):
                    self._link.send(control.DebugReport(query, self._models.open_requests(), describe_tasks()))
                case _:
                    self._tasks.start(self._obey(message))

    def _fail(self, error: BaseException) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)

    async def _obey(self, message: SupervisorMessage) -> None:
        match message:
            case control.Table(revision):
                change_logs(message.settings.log)
                await self._models.apply(message)
                self._link.send(control.Applied(revision))
            case control.Prepare(load, tokenizer):
                await self._prepare(load, tokenizer)
            case control.Open():
                await self._open()
            case control.Drain(seconds):
                await self._drain(seconds)

    async def _prepare(self, load: int, tokenizer: str) -> None:
        error: OctavoError | None = None
        try:
            await self._models.prepare(load, tokenizer)
        except OctavoError as refused:
            error = refused
        except Exception as bug:
            error = internal(bug, log)
        self._link.send(control.Prepared(load, ErrorFrame.of(error) if error else None))

    async def _open(self) -> None:
        setup = self._setup
        self._grpc = await grpc_server(setup, self._models, self._link, self._traffic)
        app = http_app(setup, self._models, self._link, self._traffic)
        self._http = HttpServer(
            app, listener(setup.http_address, setup.http_port), setup.security.http_tls, setup.http_max_header_size
        )
        gc.collect()
        gc.freeze()  # what is loaded by now stays: the collector need not walk it between messages
        self._link.send(control.Opened())

    async def _drain(self, seconds: float) -> None:
        """Open calls go on for ``seconds`` and end by themselves as soon as nothing of them is open; then everything ends.

        Those that come meanwhile are refused, and not waited for: clients that never pause must not hold up the end. Only then
        gRPC's clients are told to open no more on their connections, so each call that one has sent is answered.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._traffic.quiet()
        except TimeoutError:
            log.warning("Ending %d calls that are still open after %g s.", self._traffic.open, seconds)
            self._models.cancel_all()
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WRITES):
                    await self._traffic.quiet()
        if self._grpc is not None:
            await self._grpc.close(LAST_WRITES)
        if self._http is not None:
            await self._http.close()
        await asyncio.sleep(LAST_FLUSH)
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close, LAST_TRACES)
        self._ended.set_result(None)

    def _count_trace(self, model: str) -> None:
        self._tasks.start(self._tell_of_trace(model))

    async def _tell_of_trace(self, model: str) -> None:
        await self._link.call(partial(control.CountTrace, model=model))
        if self._tracing is not None:
            self._tracing.counted(model)

    def _report(self, query: int) -> None:
        taken = [ModelCounters(*key, counters) for key, counters in self._models.ledger.take().items()]
        self._link.send(control.CounterDeltas(query, taken))


def main() -> None:
    """Run one front end."""
    setup = msgspec.json.decode(sys.stdin.buffer.read(), type=FrontEndSetup)
    die_with_parent(setup.parent)
    name_process("octavo-frontend")
    write_stacks_on_signal(setup.control)
    configure_logs(f"front end {setup.number}", setup.settings.log)
    uvloop.run(_run(setup))


def _tracing(settings: Settings, sampled: Callable[[str], None]) -> "Tracing | None":
    """What traces requests, if any are to be; only then OpenTelemetry is needed."""
    if settings.traces is None:
        return None
    from octavo.serving.tracing import Tracing

    return Tracing(settings.traces, sampled)


async def _run(setup: FrontEndSetup) -> None:
    await FrontEnd(setup).run()
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()
