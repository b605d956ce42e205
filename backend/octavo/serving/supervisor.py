"""The supervisor: starts and watches every other process, owns the models' states and all counters, drains on SIGTERM."""

import asyncio
import logging
import os
import shutil
import signal
from contextlib import ExitStack
from pathlib import Path

import uvloop
import zmq.asyncio

from octavo.engine.control import EngineReport
from octavo.errors import Disabled, LoadFailed, OctavoError
from octavo.logs import LogSettings, change_logs, configure_logs
from octavo.repository.repository import ModelRepository
from octavo.serving import control
from octavo.serving.children import PROGRAMS, Programs
from octavo.serving.control import Call, CallReply, EnginePicture, FrontEndMessage, FrontEndSetup, ModelCounters
from octavo.serving.debug import Debug
from octavo.serving.deployment import Deployment
from octavo.serving.directory import private_directory
from octavo.serving.engines import Engines
from octavo.serving.fleet import Fleet
from octavo.serving.frontends import COLLECT_PATIENCE, FrontEnds
from octavo.serving.grpc.limits import connection_limits
from octavo.serving.http.errors import refusal
from octavo.serving.http.guard import guarded
from octavo.serving.http.listen import HttpServer
from octavo.serving.hub import Hub
from octavo.serving.metrics import Reading, metrics_app
from octavo.serving.options import BadFlag, ModelControlMode, ServeOptions
from octavo.serving.poller import Poller
from octavo.serving.ports import PortTaken, Reservation, authority, is_loopback, listener
from octavo.serving.security import Security, read_security
from octavo.serving.settings import Settings
from octavo.serving.tasks import Tasks
from octavo.serving.trace_flags import read_trace_flags

log = logging.getLogger(__name__)
COLLECT_EVERY = 1.0
NOT_EXPLICIT = "explicit model load / unload is not allowed if polling is enabled"


def run(options: ServeOptions, programs: Programs = PROGRAMS) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Once ready, one line on standard output names the ports.

    ``programs``: what its child processes run.
    """
    logs = LogSettings(verbose_level=int(options.log_verbose), format=options.log_format)
    configure_logs("supervisor", logs)
    with ExitStack() as stack:
        directory = private_directory()
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        try:
            security = read_security(options)
            trace, traces = read_trace_flags(options.trace_config)
            repository = ModelRepository(options.model_repository, options.model_name)
            ports = Ports(options, stack)
        except (BadFlag, LoadFailed, PortTaken) as error:
            log.error("%s", error)
            return 1
        settings = Settings(log=logs, trace=trace, traces=traces)
        return uvloop.run(_supervise(options, programs, security, settings, repository, ports, directory))


class Ports:
    """The three reserved ports of a server."""

    def __init__(self, options: ServeOptions, stack: ExitStack) -> None:
        """Reserve them until ``stack`` closes; raises ``PortTaken``."""
        self.grpc = stack.enter_context(Reservation("gRPC", options.grpc_address, options.grpc_port)).port
        self.http = stack.enter_context(Reservation("HTTP", options.http_address, options.http_port)).port
        self.metrics = stack.enter_context(Reservation("metrics", options.metrics_address, options.metrics_port)).port


class Supervisor:
    """One server. ``exit`` is its exit code once that is decided."""

    def __init__(
        self,
        options: ServeOptions,
        programs: Programs,
        security: Security,
        settings: Settings,
        repository: ModelRepository,
        ports: Ports,
        directory: Path,
    ) -> None:
        """Open the control sockets in ``directory``; nothing is started yet."""
        self._options, self._ports, self._settings = options, ports, settings
        self._exiting = False
        self._loads = asyncio.Semaphore(options.model_load_thread_count)
        self.exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        context = zmq.asyncio.Context.instance()
        front_end_hub: Hub[FrontEndMessage] = Hub(context, f"ipc://{directory}/front-ends", FrontEndMessage)
        engine_hub: Hub[EngineReport] = Hub(context, f"ipc://{directory}/engines", EngineReport)
        setup = _setup(options, security, settings, ports, front_end_hub.address)
        self._engines = Engines(engine_hub, programs.engine, directory, self.failed, settings.log, options.engine_timeout_secs)
        lost = self._engines.front_end_gone
        self._front_ends = FrontEnds(
            front_end_hub, programs.front_end, setup, self._call, lost, self.gave_up, self.failed, options.engine_timeout_secs
        )
        self._repository = repository
        self.fleet = Fleet(repository, self._engines, self, self)
        self.debug = Debug(self._front_ends, self._engines, self.fleet, front_end_hub.address)
        self._poller = Poller(repository, self._load, self.fleet.unload)

    # What the fleet asks of its audience.

    def publish(self) -> int:
        """Tell the front ends of the models and of readiness as they are now."""
        ready = not self._exiting and (self.fleet.all_ready() or not self._options.strict_readiness)
        return self._front_ends.publish(self.fleet.entries(), self.fleet.loads(), ready, self._exiting, self._settings)

    async def prepare(self, load: int, tokenizer: str) -> None:
        """Have all front ends read the tokenizer of a load."""
        await self._front_ends.prepare(load, tokenizer)

    async def applied(self, revision: int) -> None:
        """Wait until all front ends act by that revision."""
        await self._front_ends.applied(revision)

    async def released(self, generation: int) -> None:
        """Wait until no front end has a request on that engine."""
        await self._front_ends.released(generation)

    # What the fleet reports of its engines.

    def engine_died(self, generation: int, error: OctavoError) -> None:
        """Fail the engine's requests and readiness at once."""
        self._front_ends.engine_gone(generation, error)
        self.publish()

    def engine_back(self) -> None:
        """Tell the front ends of the new engine."""
        self.publish()

    def gave_up(self, reason: str) -> None:
        """End the whole server, because a part of it cannot be kept alive."""
        log.critical("%s The server exits.", reason)
        self.stop(1)

    def failed(self, error: BaseException) -> None:
        """End the whole server, because of a bug of ours."""
        log.critical("The server exits after an internal error.", exc_info=error)
        self.stop(1)

    def stop(self, code: int) -> None:
        """Decide on the exit code, unless that has been done."""
        if not self.exit.done():
            self.exit.set_result(code)

    async def start(self) -> None:
        """Load what is to be loaded, then open the ports and say so; a failed load may be the end."""
        self._front_ends.start(self._options.num_front_ends)
        results = await asyncio.gather(*(self._load(name) for name in await self._names()), return_exceptions=True)
        errors = [error for error in results if error is not None]
        for error in errors:
            log.error("%s", error, exc_info=None if isinstance(error, OctavoError) else error)
        if errors and self._options.exit_on_error:
            self.stop(1)
            return
        await self._front_ends.applied(self.publish())
        await self._front_ends.open()

    async def poll_for_ever(self) -> None:
        """Follow the repository, if that is wanted."""
        if self._options.model_control_mode is ModelControlMode.POLL:
            await self._poller.run(self._options.repository_poll_secs)

    async def _names(self) -> list[str]:
        """What is to be loaded at the start."""
        if self._options.model_control_mode is ModelControlMode.POLL:
            return await self._poller.look()
        explicit = self._options.model_control_mode is ModelControlMode.EXPLICIT and "*" not in self._options.load_model
        return list(self._options.load_model) if explicit else self._repository.names()

    async def read(self) -> list[Reading]:
        """Take the readings of a scrape."""
        await self._collect()
        generations = {(n, v): d.binding.generation for n, v, d in self.fleet.deployments() if d.binding}
        known = {key for key, _ in self._front_ends.totals} | set(generations)
        return [self._reading(*key, generations.get(key, 0)) for key in sorted(known)]

    def _reading(self, name: str, version: int, generation: int) -> Reading:
        counters, engines = self._front_ends.totals.of(name, version), self._engines
        totals, levels, page_size = engines.totals(name, version), engines.levels(generation), engines.page_size(generation)
        return Reading(name, version, counters, totals, levels, page_size)

    async def collect_for_ever(self) -> None:
        """Take over what children have counted, so that a death loses little."""
        while True:
            await asyncio.sleep(COLLECT_EVERY)
            await self._collect()

    async def drain(self) -> None:
        """Take no new requests, and return when the open ones have ended or their time is up."""
        self._exiting = True
        self.publish()
        log.info("Draining; open requests have %g s.", self._options.exit_timeout_secs)
        await self._front_ends.drain(self._options.exit_timeout_secs)

    async def close(self) -> None:
        """End every process at once."""
        await self._front_ends.close()
        await self.fleet.stop()
        await self._engines.close()

    async def _collect(self) -> None:
        await asyncio.gather(self._front_ends.collect(), self._engines.collect())

    async def _call(self, call: Call) -> CallReply:
        match call:
            case control.LoadModel(number, name, config):
                self._check_explicit()
                await self._load(name, config)
            case control.UnloadModel(number, name):
                self._check_explicit()
                await self.fleet.unload(name)
            case control.ListModels(number):
                return CallReply(number, index=await self.fleet.index())
            case control.ReadStatistics(number):
                await self._front_ends.collect()
                totals = [ModelCounters(*key, counters) for key, counters in self._front_ends.totals]
                return CallReply(number, statistics=totals)
            case control.ReadLoad(number):
                return CallReply(number, load=self._engines.load())
            case control.ReadPictures(number):
                await self._engines.look()
                return CallReply(number, pictures=[self._picture(*one) for one in self.fleet.deployments()])
            case control.ChangeLogs(number, changes):
                await self._set(self._settings.with_log(changes))
            case control.ChangeTraces(number, model, changes):
                await self._set(self._settings.with_trace(model, changes))
            case control.CountTrace(number, model):
                await self._set(self._settings.with_one_trace_less(model))
        return CallReply(number)

    def _picture(self, name: str, version: int, deployment: Deployment) -> EnginePicture:
        binding = deployment.binding
        if binding is None:
            return EnginePicture(name, version)
        info, picture = binding.info, self._engines.picture(binding.generation)
        return EnginePicture(name, version, binding.generation, info.device, info.dtype, info.page_size, picture)

    async def _load(self, name: str, config: str | None = None) -> None:
        async with self._loads:
            await self.fleet.load(name, config)

    async def _set(self, settings: Settings) -> None:
        """Have every process act by ``settings``."""
        self._settings = settings
        change_logs(settings.log)
        self._engines.change_logs(settings.log)
        await self._front_ends.applied(self.publish())

    def _check_explicit(self) -> None:
        if self._options.model_control_mode is not ModelControlMode.EXPLICIT:
            raise Disabled(NOT_EXPLICIT)


async def _supervise(
    options: ServeOptions,
    programs: Programs,
    security: Security,
    settings: Settings,
    repository: ModelRepository,
    ports: Ports,
    directory: Path,
) -> int:
    supervisor = Supervisor(options, programs, security, settings, repository, ports, directory)
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, _on_signal, supervisor, signum, directory)
    debug = supervisor.debug.routes if options.debug_page else []
    app = guarded(metrics_app(supervisor.read, debug), security.http_gate(), refusal)
    metrics = HttpServer(app, listener(options.metrics_address, ports.metrics))
    tasks = Tasks(supervisor.failed)
    starting = tasks.start(_start(supervisor, options, security, ports))
    tasks.start(supervisor.collect_for_ever())
    try:
        code = await supervisor.exit
        starting.cancel()
        if code == 0:
            await supervisor.drain()
    finally:
        await tasks.cancel()
        await supervisor.close()
        await metrics.close()
    log.info("The server has ended.")
    return code


async def _start(supervisor: Supervisor, options: ServeOptions, security: Security, ports: Ports) -> None:
    await supervisor.start()
    if not supervisor.exit.done():
        _announce(options, security, ports)
        await supervisor.poll_for_ever()


def _on_signal(supervisor: Supervisor, signum: signal.Signals, directory: Path) -> None:
    if supervisor.exit.done():
        log.warning("A second %s ends the server at once.", signum.name)
        shutil.rmtree(directory, ignore_errors=True)
        # The children are bound to this process's life and go with it.
        os._exit(128 + signum)
    log.info("Got %s.", signum.name)
    supervisor.stop(0)


def _announce(options: ServeOptions, security: Security, ports: Ports) -> None:
    listening = {
        "grpc": (options.grpc_address, ports.grpc),
        "http": (options.http_address, ports.http),
        "metrics": (options.metrics_address, ports.metrics),
    }
    exposed = [name for name, (address, _) in listening.items() if not is_loopback(address)]
    if exposed and not security.access.credentials:
        log.warning("Anybody who can reach the %s port may use it: no credentials are configured.", " and the ".join(exposed))
    print("octavo ready " + " ".join(f"{name}={authority(*where)}" for name, where in listening.items()), flush=True)


def _setup(options: ServeOptions, security: Security, settings: Settings, ports: Ports, address: str) -> FrontEndSetup:
    return FrontEndSetup(
        number=0,
        parent=os.getpid(),
        control=address,
        patience=options.engine_timeout_secs + COLLECT_EVERY + COLLECT_PATIENCE,
        grpc_address=options.grpc_address,
        grpc_port=ports.grpc,
        http_address=options.http_address,
        http_port=ports.http,
        grpc_limits=connection_limits(options),
        max_stream_requests=options.grpc_max_stream_requests,
        http_max_input_size=options.http_max_input_size,
        http_cors_origins=list(options.http_cors_origin),
        http_max_header_size=options.http_max_header_size,
        http_page=options.http_page,
        max_response_buffer_size=options.max_response_buffer_size,
        limits=options.request_limits,
        security=security,
        settings=settings,
    )
