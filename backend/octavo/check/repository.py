"""``check_repository``: every model of a repository as ``octavo serve`` would load it, without loading it.

Reads configurations, tokenizers and the heads of weights. Knows no flag and no terminal.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from octavo.check.gpus import CONTEXT_BYTES, GpuModel
from octavo.engine.process import load_failure
from octavo.errors import LoadFailed, NotFound, OctavoError, Problems
from octavo.repository import sources
from octavo.repository.repository import ModelRepository
from octavo.repository.spec import ModelSpec
from octavo.runtime.plan import Gpu, MemoryPlan, plan_memory
from octavo.text.tokenizer import load_tokenizer


class Finding(msgspec.Struct, kw_only=True):
    """What is known of one version of a model. ``notes``: what is accepted and has no effect. No ``plan``: it cannot be loaded.

    ``version`` is None for a model of which no version can be told.
    """

    model: str
    version: int | None = None
    device: str = ""
    plan: MemoryPlan | None = None
    problems: list[str] = []
    notes: list[str] = []


def check_repository(paths: Sequence[Path], model_name: str | None, gpu: GpuModel | None) -> list[Finding]:
    """A finding for each version that would be served, in alphabetical order.

    ``gpu``: what every GPU of the server is, None for those of this machine. Models that share one are planned in that order, each
    beside those before it. Raises ``LoadFailed`` if there is no such repository.
    """
    repository, planner = ModelRepository(paths, model_name, download=False), _Planner(gpu)
    findings: list[Finding] = []
    for name in repository.names():
        with _notes() as notes:
            try:
                specs = repository.spec(name)
            except (LoadFailed, NotFound) as error:
                findings.append(Finding(model=name, problems=[str(problem) for problem in error.args], notes=notes))
                continue
        findings += [_check(spec, planner) for spec in specs]
        findings[-len(specs)].notes = notes
    return findings


def _check(spec: ModelSpec, planner: "_Planner") -> Finding:
    finding, found = Finding(model=spec.name, version=spec.version, device=spec.engine.device), Problems()
    with found.catch(), _as_a_load_fails():
        load_tokenizer(spec.engine.tokenizer)
    with found.catch(), _as_a_load_fails():
        finding.device, finding.plan = planner.plan(spec)
    finding.problems = found.told
    return finding


class _Planner:
    """Plans one model after the other, each on what is left of its device."""

    def __init__(self, gpu: GpuModel | None) -> None:
        self._gpu = gpu
        self._gpus: dict[str, Gpu] = {}

    def plan(self, spec: ModelSpec) -> tuple[str, MemoryPlan]:
        """The device of ``spec``, and its plan. Raises ``LoadFailed``."""
        device = self._device(spec.engine.device)
        if device == "cpu":
            return device, plan_memory(spec.engine, None)
        gpu = self._gpus[device]
        plan = plan_memory(spec.engine, gpu)
        self._gpus[device] = Gpu(gpu.total, gpu.free - plan.total_bytes - CONTEXT_BYTES)
        return device, plan

    def _device(self, wanted: str) -> str:
        if self._gpu is not None and wanted != "cpu":
            device = wanted if ":" in wanted else "cuda:0"
            self._look_at(device, self._gpu.empty(), self._gpu.capability)
            return device
        from octavo.runtime.device import resolve_device

        device = str(resolve_device(wanted))
        if device != "cpu":
            import torch

            free, total = torch.cuda.mem_get_info(device)
            self._look_at(device, Gpu(total, free), torch.cuda.get_device_capability(device))
        return device

    def _look_at(self, device: str, gpu: Gpu, capability: tuple[int, int]) -> None:
        if device in self._gpus:
            return
        try:
            from octavo_kernels.precompile import launch_nothing
        except ImportError:
            raise LoadFailed("A plan for a GPU needs the package triton; install octavo[gpu].") from None
        launch_nothing(capability)
        self._gpus[device] = gpu


@contextmanager
def _as_a_load_fails() -> Iterator[None]:
    """Whatever goes wrong inside is told as an engine would tell it."""
    try:
        yield
    except OctavoError:
        raise
    except Exception as error:
        raise LoadFailed(str(load_failure(error))) from error


@contextmanager
def _notes() -> Iterator[list[str]]:
    """Collects what the repository would write into the log of what it was told."""
    lines: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.addFilter(lambda record: record.name != sources.__name__)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("octavo.repository")
    before, log.propagate = (log.level, log.propagate), False
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield lines
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]
