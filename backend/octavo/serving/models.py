"""``Models``: a front end's view of the models: what the supervisor's table says, and the engines behind it."""

import asyncio
import logging
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from octavo.config import DEFAULT_LIMITS, RequestLimits
from octavo.errors import Draining, EngineDead, NotFound, OctavoError, shown
from octavo.protocol.rejection import RejectedRequest
from octavo.protocol.triton import TritonModel
from octavo.serving.auth import Headers
from octavo.serving.control import EngineBinding, ModelState, OpenRequest, Table, VersionEntry
from octavo.serving.news import News
from octavo.serving.served import ServedEngine, Trace
from octavo.serving.settings import Settings
from octavo.serving.statistics import Ledger
from octavo.text.rendering import template_helper
from octavo.text.tokenizer import Tokenizer, load_tokenizer
from octavo.wire import mc

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
log = logging.getLogger(__name__)
SHUTTING_DOWN = "GRPC server is shutting down and has stopped accepting new requests."


class Route:
    """One version of a model. ``engine`` is None when it is not READY, or when its engine is dead: then ``failure`` says why."""

    def __init__(self, name: str, entry: VersionEntry, engine: ServedEngine | None, limits: RequestLimits) -> None:
        """What ``entry`` says, served by ``engine``."""
        self.name, self.version, self.state = name, entry.version, entry.state
        self.config = mc.ModelConfig.FromString(entry.config)
        self.tensors = TritonModel(self.config, entry.version, limits)
        self.failure = entry.failure
        self.engine = engine


class Tracing(Protocol):
    """Decides which requests are traced."""

    def begin(self, model: str, version: int, settings: Settings, header: Headers) -> Trace | None:
        """The trace of a request that has just come."""


class Models:
    """The models as this front end serves them. ``ledger`` counts, ``tracing`` traces.

    ``released`` hears of engines that are no longer used.

    ``stopped`` hears of requests that a client wants to end by model and id, for they may be open in other front ends.

    An engine of ``_engines`` is dead or let go once it is not there any more; those in ``_retiring`` only finish what is open.
    """

    def __init__(
        self, released: Callable[[int], None], stopped: Callable[[str, str, bytes], None], limits: RequestLimits = DEFAULT_LIMITS
    ) -> None:
        """No model is known yet; every request is held to ``limits``."""
        self.limits = limits
        self.ledger = Ledger()
        self.tracing: Tracing | None = None
        self.ready = self.exiting = False
        self.news = News()
        self._released, self._stopped = released, stopped
        self._table = Table(-1, [], [], ready=False, exiting=False, settings=Settings())
        self._routes: dict[str, dict[int, Route]] = {}
        self._aliases: dict[str, str] = {}
        self._engines: dict[int, ServedEngine] = {}
        self._retiring: set[int] = set()
        self._gone: set[int] = set()
        self._templates = template_helper()
        self._tokenizers: dict[int, asyncio.Task[Tokenizer]] = {}

    @property
    def settings(self) -> Settings:
        """What can be set while the server runs, as it is."""
        return self._table.settings

    async def prepare(self, load: int, tokenizer: str) -> Tokenizer:
        """Read the tokenizer of a load, once. Raises ``LoadFailed``."""
        if load not in self._tokenizers:
            self._tokenizers[load] = asyncio.ensure_future(asyncio.to_thread(load_tokenizer, tokenizer, self._templates))
        return await self._tokenizers[load]

    async def apply(self, table: Table) -> None:
        """Act by ``table``: at once where that is possible, and wholly when this returns.

        An engine that is not known yet may first need its tokenizer; until then what served before goes on.
        """
        if table.revision > self._table.revision:
            self._table = table
            self._switch()
        for name, entry in _versions(table):
            if entry.engine is not None and entry.engine.generation not in self._engines:
                await self._connect(name, entry.version, entry.engine)
        self._switch()

    def engine_gone(self, generation: int, error: OctavoError) -> None:
        """An engine has died: its requests end with ``error``."""
        self._gone.add(generation)
        engine = self._engines.pop(generation, None)
        if engine is not None:
            engine.die(error)
            engine.close()

    def find(self, name: str, version: str) -> Route:
        """The READY version that a request names, the highest if ``version`` is empty. Raises with Triton's texts."""
        wanted = parse_version(version)
        routes = self._routes.get(self.canonical(name))
        if routes is None:
            raise NotFound(f"Request for unknown model: '{shown(name)}' is not found")
        if wanted is None:
            ready = [route for route in routes.values() if route.state is ModelState.READY]
            if not ready:
                raise NotFound(f"Request for unknown model: '{name}' has no available versions")
            return max(ready, key=lambda route: route.version)
        if wanted not in routes:
            raise NotFound(f"Request for unknown model: '{name}' version {wanted} is not found")
        if routes[wanted].state is not ModelState.READY:
            raise Draining(f"Request for unknown model: '{name}' version {wanted} is not at ready state")
        return routes[wanted]

    def trace(self, route: Route, headers: Headers) -> Trace | None:
        """The trace of a request for ``route`` that has just come, None if it is not to be traced."""
        return self.tracing.begin(route.name, route.version, self.settings, headers) if self.tracing else None

    def engine(self, route: Route) -> ServedEngine:
        """The engine that takes a new request for ``route``; raises while there is none."""
        if self.exiting:
            raise Draining(SHUTTING_DOWN)
        if route.failure is not None:
            raise route.failure.exception()
        if route.engine is None:
            raise EngineDead(f"Request for unknown model: '{route.name}' version {route.version} is not at ready state")
        return route.engine

    def versions(self, name: str) -> list[int]:
        """The READY versions of a model."""
        return sorted(v for v, route in self._routes.get(self.canonical(name), {}).items() if route.state is ModelState.READY)

    def names(self) -> list[str]:
        """Every model that is loaded or was."""
        return sorted(self._routes)

    def canonical(self, name: str) -> str:
        """A model's own name, if ``name`` is one that its settings give it."""
        return name if name in self._routes else self._aliases.get(name, name)

    def served_names(self) -> list[str]:
        """Every name under which a READY model answers: its own, and those that its settings give it."""
        return sorted(name for name in {*self._routes, *self._aliases} if self.is_ready(name, ""))

    def is_ready(self, name: str, version: str) -> bool:
        """Whether requests for this version are answered now; raises ``RejectedRequest`` for what is no version."""
        parse_version(version)
        try:
            return self.find(name, version).engine is not None and not self.exiting
        except OctavoError:
            return False

    def stop(self, name: str, request_id: str, owner: bytes) -> None:
        """End all requests of a model and an owner that have this id, wherever they are open."""
        self.stop_here(name, request_id, owner)
        self._stopped(name, request_id, owner)

    def stop_here(self, name: str, request_id: str, owner: bytes) -> None:
        """End those of them that are open in this front end."""
        for engine in list(self._engines.values()):
            engine.stop(name, request_id, owner)

    def open_requests(self) -> list[OpenRequest]:
        """All open generations, as an operator may see them."""
        now = time.monotonic()
        return [request for engine in self._engines.values() for request in engine.open_requests(now)]

    def cancel_all(self) -> None:
        """End all open generations."""
        for engine in self._engines.values():
            engine.cancel_all()

    def _switch(self) -> None:
        table = self._table
        self.ready, self.exiting = table.ready, table.exiting
        routes: dict[str, dict[int, Route]] = {model.name: {} for model in table.models}
        for name, entry in _versions(table):
            routes[name][entry.version] = self._route(name, entry)
        self._routes = routes
        # Where two models want one name, the first in the order of their own names has it, and a model's own name is its own.
        aliases = [(alias, name) for name, entry in _versions(table) for alias in entry.aliases if alias not in routes]
        self._aliases = dict(reversed(aliases))
        self._retire_unused()
        self.news.tell()

    def _route(self, name: str, entry: VersionEntry) -> Route:
        engine = self._engines.get(entry.engine.generation) if entry.engine else None
        before = self._routes.get(name, {}).get(entry.version)
        if engine is None and entry.engine is not None and before is not None and before.engine is not None:
            return before
        return Route(name, entry, engine, self.limits)

    def _retire_unused(self) -> None:
        used = {route.engine for routes in self._routes.values() for route in routes.values()}
        wanted = self._wanted() | self._retiring
        for generation, engine in list(self._engines.items()):
            if engine not in used and generation not in wanted:
                self._retiring.add(generation)
                engine.retire(partial(self._let_go, generation))
        for load in set(self._tokenizers) - set(self._table.loads):
            del self._tokenizers[load]

    def _let_go(self, generation: int) -> None:
        self._retiring.discard(generation)
        engine = self._engines.pop(generation, None)
        if engine is not None:
            engine.close()
            self._released(generation)

    def _wanted(self) -> set[int]:
        return {entry.engine.generation for _, entry in _versions(self._table) if entry.engine}

    async def _connect(self, name: str, version: int, binding: EngineBinding) -> None:
        try:
            tokenizer = await self.prepare(binding.load, binding.tokenizer)
        except OctavoError as error:
            log.error("Model %s version %d cannot be served here: %s", name, version, error)
            self._released(binding.generation)
            return
        if binding.generation in self._engines or binding.generation in self._gone:
            return
        if binding.generation not in self._wanted():
            self._released(binding.generation)
            return
        self._engines[binding.generation] = ServedEngine(binding, tokenizer, partial(self.ledger.of, name, version), self.limits)


def parse_version(version: str) -> int | None:
    """The number that a request's version string names, None if it is empty. Raises ``RejectedRequest`` with Triton's texts."""
    if not version:
        return None
    number = int(version) if _INTEGER.fullmatch(version) else 2**63
    if not -(2**63) <= number < 2**63:
        raise RejectedRequest(
            f"failed to get model version from specified version string '{shown(version)}' (details: stol), "
            "version should be an integral value > 0"
        )
    if number < 0:
        raise RejectedRequest(f"invalid model version specified '{version}' , version should be an integral value > 0")
    return number


def _versions(table: Table) -> list[tuple[str, VersionEntry]]:
    return [(model.name, entry) for model in table.models for entry in model.versions]
