"""``/debug``: what an operator needs when something is stuck. Reads the supervisor's children; shows no prompt and no answer.

It has a group of its own and is there only where a flag asks for it and calls of that group need a token.
"""

import asyncio
import faulthandler
import importlib.metadata
import os
import platform
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from octavo.engine.messages import EngineStats
from octavo.engine.stacks import SIGNAL, stacks_file
from octavo.serving.children import Child
from octavo.serving.control import IndexEntry, OpenRequest
from octavo.serving.engines import EngineProcess, Engines
from octavo.serving.fleet import Fleet
from octavo.serving.frontends import FrontEnds
from octavo.serving.identity import NAME, VERSION
from octavo.serving.tasks import describe_tasks

MOST_REQUESTS = 1000
DUMP_PATIENCE, DUMP_STEP = 2.0, 0.05
LIBRARIES = ("torch", "triton", "transformers", "tokenizers", "grpcio", "protobuf", "pyzmq", "starlette", "uvicorn", "llguidance")


class ProcessView(msgspec.Struct, frozen=True):
    """A process. ``restarts``: of its model's engine, or of all front ends. ``silent_s``: for how long it owes an answer."""

    name: str
    pid: int
    uptime_s: float
    restarts: int
    model: str = ""
    silent_s: float = 0.0
    queue: EngineStats | None = None


class RequestView(msgspec.Struct, frozen=True):
    """An open request, and the process that holds its connection."""

    process: str
    request: OpenRequest


class DebugView(msgspec.Struct, frozen=True):
    """Everything but the stacks. ``requests``: the oldest of the ``open_requests``, at most ``MOST_REQUESTS``."""

    versions: dict[str, str]
    processes: list[ProcessView]
    models: list[IndexEntry]
    open_requests: int
    requests: list[RequestView]


class _Named(NamedTuple):
    name: str
    child: Child


class Debug:
    """The routes of ``/debug``, over what the supervisor knows of its children."""

    def __init__(self, front_ends: FrontEnds, engines: Engines, fleet: Fleet, socket: str) -> None:
        """``socket``: the ipc address beside which children write their stacks."""
        self._front_ends, self._engines, self._fleet, self._socket = front_ends, engines, fleet, socket
        self._started = time.monotonic()
        self.routes = [Route("/debug", self._state), Route("/debug/stacks", self._stacks)]

    async def _state(self, _: Request) -> Response:
        await asyncio.gather(self._front_ends.look(), self._engines.collect())
        now = time.monotonic()
        requests = [
            RequestView(front_end.name, request)
            for front_end in self._front_ends.processes()
            for request in front_end.report.requests
        ]
        requests.sort(key=lambda view: -view.request.age_s)
        view = DebugView(_versions(), self._processes(now), await self._fleet.index(), len(requests), requests[:MOST_REQUESTS])
        return Response(msgspec.json.format(msgspec.json.encode(view)), media_type="application/json")

    def _processes(self, now: float) -> list[ProcessView]:
        views = [ProcessView("supervisor", os.getpid(), now - self._started, 0)]
        for front_end in self._front_ends.processes():
            if front_end.child is not None:
                age, silent = now - front_end.child.started_at, _since(front_end.asked_at, now)
                views.append(ProcessView(front_end.name, front_end.child.pid, age, self._front_ends.restarts, silent_s=silent))
        return [*views, *(self._engine(engine, now) for engine in self._engines.processes())]

    def _engine(self, engine: EngineProcess, now: float) -> ProcessView:
        name, version = engine.config.name, engine.config.version
        silent = _since(engine.asked_at, now)
        restarts, age = self._engines.totals(name, version).restarts, now - engine.child.started_at
        return ProcessView(_engine_name(engine), engine.child.pid, age, restarts, f"{name} {version}", silent, engine.stats)

    async def _stacks(self, _: Request) -> Response:
        await self._front_ends.look()
        parts = [f"== supervisor {os.getpid()}", _own_stacks(), *describe_tasks()]
        tasks = {front_end.name: front_end.report.tasks for front_end in self._front_ends.processes()}
        children = [_Named(one.name, one.child) for one in self._front_ends.processes() if one.child is not None]
        children += [_Named(_engine_name(engine), engine.child) for engine in self._engines.processes()]
        for (name, child), stacks in zip(children, await asyncio.gather(*map(self._stacks_of, children)), strict=True):
            parts += [f"\n== {name} {child.pid}", stacks, *tasks.get(name, [])]
        return PlainTextResponse("\n".join(parts) + "\n")

    async def _stacks_of(self, named: _Named) -> str:
        """What the process says of its threads; it says so even if its event loop hangs, unless the system does not let it run."""
        file = stacks_file(self._socket, named.child.pid)
        before = _size(file)
        if before is None:
            return "It has just started."
        named.child.send_signal(SIGNAL)
        said, deadline = before, time.monotonic() + DUMP_PATIENCE
        while time.monotonic() < deadline:
            await asyncio.sleep(DUMP_STEP)
            now = _size(file) or 0
            if now == said > before:
                break
            said = now
        return file.read_bytes()[before:].decode(errors="replace") or "It does not answer: it is stopped, or hangs in the system."


def _since(then: float | None, now: float) -> float:
    return 0.0 if then is None else now - then


def _engine_name(engine: EngineProcess) -> str:
    return f"engine-{engine.generation}"


def _size(file: Path) -> int | None:
    with suppress(OSError):
        return file.stat().st_size
    return None


def _own_stacks() -> str:
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read().decode()


def _versions() -> dict[str, str]:
    found = {NAME: VERSION, "python": platform.python_version(), "kernel": platform.release()}
    for library in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[library] = importlib.metadata.version(library)
    return found
