"""``Fleet``: the states of all models, and the loads and unloads that change them. Knows no socket and no client."""

import asyncio
import itertools
import logging
from collections.abc import Coroutine, Iterator
from typing import Protocol
from weakref import WeakValueDictionary

from octavo.errors import ErrorFrame, LoadFailed
from octavo.repository.repository import ModelRepository, ModelSpec
from octavo.serving.budget import Tenant, fits_beside
from octavo.serving.control import IndexEntry, ModelEntry, ModelState, VersionEntry
from octavo.serving.deployment import Deployment, Watcher
from octavo.serving.engines import Engines
from octavo.serving.tasks import Tasks

log = logging.getLogger(__name__)
UNLOADED = "unloaded"


class Audience(Protocol):
    """The front ends, as far as loads and unloads have to wait for them."""

    def publish(self) -> int:
        """Tell them of the models as they are now; the revision to wait for."""

    async def prepare(self, load: int, tokenizer: str) -> None:
        """Have all of them read the tokenizer of a load; raises if one of them cannot."""

    async def applied(self, revision: int) -> None:
        """Wait until all of them act by that revision."""

    async def released(self, generation: int) -> None:
        """Wait until none of them has a request on that engine, nor will have."""


class Slot:
    """One version of one model: what clients see of it, and what runs behind."""

    def __init__(self, state: ModelState, reason: str = "", deployment: Deployment | None = None) -> None:
        """A slot in ``state``, whose deployment is set while it is READY or UNLOADING."""
        self.state, self.reason, self.deployment = state, reason, deployment

    @property
    def serving(self) -> bool:
        """Whether requests are answered now."""
        return self.state is ModelState.READY and self.deployment is not None and self.deployment.binding is not None

    def entry(self, version: int) -> VersionEntry:
        """What front ends are told."""
        if self.state is not ModelState.READY or self.deployment is None:
            return VersionEntry(version, self.state, self.reason)
        spec, binding = self.deployment.spec, self.deployment.binding
        failure = ErrorFrame.of(self.deployment.failure) if self.deployment.failure else None
        return VersionEntry(version, self.state, self.reason, spec.config, binding, failure, spec.aliases)


class Fleet:
    """All models that are loaded or were.

    A load is all versions or none: if one fails, what served before goes on serving. Loads and unloads of one model follow
    one another; a load waits for the unload before it to have given its memory back. A reload overlaps the old and the new if
    both fit on the device. Otherwise the new weights are looked at, the old engines end once their requests have, and the new
    ones take their place, or the old ones again if the new ones cannot.
    """

    def __init__(self, repository: ModelRepository, engines: Engines, audience: Audience, watcher: Watcher) -> None:
        """Nothing is loaded yet."""
        self._repository, self._engines, self._audience, self._watcher = repository, engines, audience, watcher
        self._models: dict[str, dict[int, Slot]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._loads = itertools.count(1)
        self._under_way: set[int] = set()
        self._tasks = Tasks(watcher.failed)
        self._draining: dict[str, set[asyncio.Task[None]]] = {}

    def entries(self) -> list[ModelEntry]:
        """The models for the front ends' table."""
        return [
            ModelEntry(name, [slot.entry(version) for version, slot in sorted(slots.items())])
            for name, slots in sorted(self._models.items())
        ]

    def loads(self) -> list[int]:
        """The loads that serve or are under way."""
        return sorted(self._under_way.union(deployment.load for _, _, deployment in self.deployments()))

    def deployments(self) -> Iterator[tuple[str, int, Deployment]]:
        """``(name, version, deployment)`` of everything that serves or drains."""
        for name, slots in sorted(self._models.items()):
            for version, slot in sorted(slots.items()):
                if slot.deployment is not None:
                    yield name, version, slot.deployment

    def all_ready(self) -> bool:
        """Strict readiness: nothing has failed to load, nothing is loading, and every engine lives."""
        if not all(self._models.values()):
            return False
        slots = [slot for versions in self._models.values() for slot in versions.values()]
        return all(slot.serving or slot.state is ModelState.UNLOADING or slot.reason == UNLOADED for slot in slots)

    async def index(self) -> list[IndexEntry]:
        """Every model of the repository and every model that was loaded, by name and version."""
        names = await asyncio.to_thread(self._repository.names)
        entries = [IndexEntry(name) for name in names if not self._models.get(name)]
        for name, slots in self._models.items():
            entries += [IndexEntry(name, version, slot.state, slot.reason) for version, slot in slots.items()]
        return sorted(entries, key=lambda entry: (entry.name, entry.version or 0))

    async def load(self, name: str, config: str | None = None) -> None:
        """Load a model, or load it again; returns when all front ends serve it. ``config``: ModelConfig JSON to use instead.

        Raises ``NotFound`` if the repository has no such model, ``LoadFailed`` with Triton's words for the rest.
        """
        async with self._lock(name):
            specs = await self._specs(name, config)
            if not any(slot.state is ModelState.READY for slot in self._models.get(name, {}).values()):
                await asyncio.gather(*self._draining.get(name, ()))
            fresh = self._new_deployments(specs)
            loads = {deployment.load for deployment in fresh.values()}
            self._under_way |= loads
            self._audience.publish()
            try:
                if self._fits(name, fresh):
                    await self._start(name, fresh)
                    await self._switch(name, fresh)
                else:
                    await self._swap(name, fresh)
            finally:
                self._under_way -= loads
                self._audience.publish()

    async def unload(self, name: str) -> None:
        """Take no new requests for a model, and let it go once its open ones have ended; unknown names are no error.

        A failed load is forgotten, and readiness no longer depends on it.
        """
        async with self._lock(name):
            slots = self._models.get(name, {})
            leaving = [slot for slot in slots.values() if slot.deployment and slot.state is ModelState.READY]
            for slot in leaving:
                slot.state = ModelState.UNLOADING
            for slot in slots.values():
                slot.reason = UNLOADED if slot.state is ModelState.UNAVAILABLE else slot.reason
            if not slots:
                self._models.pop(name, None)
            await self._audience.applied(self._audience.publish())
            for slot in leaving:
                self._drain_soon(name, self._let_go(slot))

    async def stop(self) -> None:
        """End everything at once."""
        await self._tasks.cancel()
        await asyncio.gather(*(deployment.stop() for _, _, deployment in self.deployments()))

    async def _specs(self, name: str, config: str | None) -> list[ModelSpec]:
        try:
            return await asyncio.to_thread(self._repository.spec, name, override_config=config)
        except LoadFailed as error:
            self._models.setdefault(name, {})
            self._audience.publish()
            raise LoadFailed(f"load failed for model '{name}': {error}") from error

    def _new_deployments(self, specs: list[ModelSpec]) -> dict[int, Deployment]:
        fresh = {spec.version: Deployment(self._engines, spec, next(self._loads), self._watcher) for spec in specs}
        slots = self._models.setdefault(specs[0].name, {})
        for version in fresh:
            if version not in slots or slots[version].state is not ModelState.READY:
                slots[version] = Slot(ModelState.LOADING)
        return fresh

    async def _start(self, name: str, fresh: dict[int, Deployment]) -> None:
        try:
            results = await asyncio.gather(*map(self._start_one, fresh.values()), return_exceptions=True)
        except asyncio.CancelledError:
            await asyncio.gather(*(deployment.stop() for deployment in fresh.values()))
            raise
        failed = {version: error for version, error in zip(fresh, results, strict=True) if error is not None}
        if not failed:
            return
        await asyncio.gather(*(deployment.stop() for deployment in fresh.values()))
        for version in fresh:
            slot = self._models[name][version]
            if slot.state is ModelState.LOADING:
                slot.state, slot.reason = ModelState.UNAVAILABLE, f"Internal: {failed.get(version, 'another version failed')}"
        for error in failed.values():
            if not isinstance(error, LoadFailed):
                raise error
        reasons = "".join(f"version {version} is at UNAVAILABLE state: Internal: {error};\n" for version, error in failed.items())
        raise LoadFailed(f"load failed for model '{name}': {reasons}")

    def _fits(self, name: str, fresh: dict[int, Deployment]) -> bool:
        tenants = {(n, v): Tenant(d.spec.engine, d.info) for n, v, d in self.deployments() if d.info is not None}
        replaced = [tenant for (model, _), tenant in tenants.items() if model == name]
        configs = [deployment.spec.engine for deployment in fresh.values()]
        return all(fits_beside(configs, tenant, tenants.values()) for tenant in replaced)

    async def _swap(self, name: str, fresh: dict[int, Deployment]) -> None:
        """Replace what runs by what does not fit beside it; bring it back if the new engines do not start."""
        old = {version: slot for version, slot in self._models[name].items() if slot.state is ModelState.READY}
        try:
            await asyncio.gather(*(self._engines.check(deployment.spec.engine) for deployment in fresh.values()))
        except LoadFailed as error:
            raise LoadFailed(f"load failed for model '{name}': {error}") from error
        log.info("Model %s is replaced in place: the old and the new do not fit on the device together.", name)
        await asyncio.gather(*(self._make_way(slot) for slot in old.values()))
        try:
            await self._start(name, fresh)
        except LoadFailed:
            await asyncio.gather(*(self._bring_back(slot) for slot in old.values()))
            raise
        for slot in old.values():
            slot.state, slot.reason, slot.deployment = ModelState.UNAVAILABLE, UNLOADED, None
        await self._switch(name, fresh)

    async def _make_way(self, slot: Slot) -> None:
        deployment = slot.deployment
        assert deployment is not None
        generation = deployment.binding.generation if deployment.binding else None
        deployment.pause()
        await self._audience.applied(self._audience.publish())
        if generation is not None:
            await self._audience.released(generation)
        await deployment.stop()

    async def _bring_back(self, slot: Slot) -> None:
        assert slot.deployment is not None
        spec = slot.deployment.spec
        again = Deployment(self._engines, spec, next(self._loads), self._watcher)
        try:
            await again.start()
        except LoadFailed as error:
            log.error("Model %s version %d could not be brought back: %s", spec.name, spec.version, error)
            slot.state, slot.reason, slot.deployment = ModelState.UNAVAILABLE, f"Internal: {error}", None
        else:
            log.info("Model %s version %d is what it was before.", spec.name, spec.version)
            slot.deployment = again

    async def _start_one(self, deployment: Deployment) -> None:
        """Start the engine and read the tokenizer side by side; the first that fails ends both."""
        tokenizer = deployment.spec.engine.tokenizer
        halves = [asyncio.ensure_future(half) for half in (deployment.start(), self._audience.prepare(deployment.load, tokenizer))]
        try:
            await asyncio.gather(*halves)
        finally:
            for half in halves:
                half.cancel()
            await asyncio.wait(halves)

    async def _switch(self, name: str, fresh: dict[int, Deployment]) -> None:
        slots = self._models[name]
        old = [slot for slot in slots.values() if slot.deployment and slot.state is ModelState.READY]
        for slot in old:
            slot.state = ModelState.UNLOADING
        for version, deployment in fresh.items():
            slots[version] = Slot(ModelState.READY, deployment=deployment)
        await self._audience.applied(self._audience.publish())
        for slot in old:
            self._drain_soon(name, self._let_go(slot))

    async def _let_go(self, slot: Slot) -> None:
        deployment = slot.deployment
        assert deployment is not None
        deployment.retire()
        try:
            if deployment.binding is not None:
                await self._audience.released(deployment.binding.generation)
        finally:
            await deployment.stop()
        slot.state, slot.reason, slot.deployment = ModelState.UNAVAILABLE, UNLOADED, None
        log.info("Model %s version %d is unloaded.", deployment.spec.name, deployment.spec.version)
        self._audience.publish()

    def _drain_soon(self, name: str, work: Coroutine[None, None, None]) -> None:
        task = self._tasks.start(work)
        draining = self._draining.setdefault(name, set())
        draining.add(task)
        task.add_done_callback(draining.discard)

    def _lock(self, name: str) -> asyncio.Lock:
        # A lock lives while somebody holds it or waits for it: names come from clients and must not pile up.
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock
