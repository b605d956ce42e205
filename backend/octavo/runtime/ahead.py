"""Compiles an engine's kernels in processes beside it while it loads its weights, into a cache that survives it. Knows no kernel.

Every worker calls all launchers and compiles what it claims first, so none waits for another. The engine finds on disk what they
made; what they did not make it compiles itself.
"""

import logging
import mmap
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from multiprocessing.context import ForkProcess
from pathlib import Path
from tempfile import TemporaryFile, mkdtemp
from threading import Thread
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch

import octavo_kernels
from octavo.config import EngineConfig
from octavo.engine.cores import usable_cores
from octavo.engine.lifeline import die_with_parent, name_process
from octavo.errors import LoadFailed
from octavo.models.loader import describe_model
from octavo.runtime.device import resolve_page_size

if TYPE_CHECKING:
    from octavo_kernels.precompile import Claims

log = logging.getLogger(__name__)

CACHE_VARIABLE = "TRITON_CACHE_DIR"
SHIPPED_VARIABLE = "OCTAVO_KERNELS"
MOST_WORKERS = 16
PATIENCE = 120.0  # seconds after which workers are given up


@contextmanager
def compiled_ahead(
    config: EngineConfig, page_size: int, capability: tuple[int, int], patience: float | None = PATIENCE
) -> Iterator[None]:
    """While the body runs, workers compile what an engine of ``config`` launches on a GPU of ``capability``.

    Then they are waited for, for ``patience`` seconds, None for as long as it takes.

    Nothing is done for what a start has compiled before. Enter it before the process has a context on a GPU, from a thread that
    stays. No worker outlives it, none fails it.
    """
    from octavo_kernels import precompile

    precompile.when_compiled(None)
    done = _known_start(config, page_size, capability)
    workers: list[ForkProcess] = []
    if not done.exists():
        octavo_kernels.for_device(torch.device("meta"), config.deterministic)  # imported once, for all workers
        started, tally = time.monotonic(), np.frombuffer(mmap.mmap(-1, 8), np.int32)
        workers = _hire(config, page_size, capability, tally)
    try:
        Thread(target=precompile.read_triton, daemon=True).start()
        yield
        waited = time.monotonic()
        for worker in workers:
            worker.join(None if patience is None else max(0.0, waited + patience - time.monotonic()))
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
    if workers:
        log.info(
            "Compiled %d kernels in %.1f s on %d cores, and waited %.1f s for them",
            tally[0], time.monotonic() - started, len(workers), time.monotonic() - waited,
        )  # fmt: skip
        if failed := sum(worker.exitcode != 0 for worker in workers):
            log.warning("%d of %d workers have failed; the engine compiles the kernels that they leave", failed, len(workers))
        else:
            with suppress(OSError):  # a cache that came with an image may be for reading only
                done.touch()


def compile_for(config: EngineConfig, capability: tuple[int, int]) -> None:
    """Compile what an engine of ``config`` launches on a GPU of ``capability``. Raises ``LoadFailed`` if that does not succeed."""
    try:
        import octavo_kernels.precompile  # noqa: F401
    except ImportError:
        raise LoadFailed("Compiling kernels needs the package triton; install octavo[gpu].") from None
    device = torch.device("cuda")
    describe_model(config, device)
    page_size = resolve_page_size(config.block_size, device)
    with compiled_ahead(config, page_size, capability, patience=None):
        pass
    if not _known_start(config, page_size, capability).exists():
        raise LoadFailed(f"Not all kernels of model '{config.name}' could be compiled; the log says why.")


def choose_cache() -> Path:
    """Have kernels kept in ``_kernels_folder``, with those that came with an image (``OCTAVO_KERNELS``) linked into it."""
    folder = _kernels_folder()
    shipped = os.environ.get(SHIPPED_VARIABLE)
    for kernel in Path(shipped).iterdir() if shipped and Path(shipped).is_dir() else ():
        if kernel.is_dir():
            with suppress(OSError):  # it is there, or the folder is for reading only
                (folder / kernel.name).symlink_to(kernel)
    return folder


def _kernels_folder() -> Path:
    """Where ``TRITON_CACHE_DIR`` says, else in the user's cache folder: both outlive the engine."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE])
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "octavo" / "kernels"
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError):
        log.warning("The user's cache folder cannot be written: set %s, or every start compiles all kernels", CACHE_VARIABLE)
        folder = Path(mkdtemp(prefix="octavo-kernels-"))
    os.environ[CACHE_VARIABLE] = str(folder)
    return folder


def warn_of_compiles() -> None:
    """From now on, say so in the log when a kernel is compiled: steps waited for it, and the start should have met it."""
    from octavo_kernels import precompile

    precompile.when_compiled(
        lambda name, seconds: log.warning("%s was compiled after the engine was ready, for %.1f s", name, seconds)
    )


def _known_start(config: EngineConfig, page_size: int, capability: tuple[int, int]) -> Path:
    """The file that says that all kernels of a start are compiled."""
    return choose_cache() / f"octavo-{_identity(config, page_size, capability)}"


def _identity(config: EngineConfig, page_size: int, capability: tuple[int, int]) -> str:
    """Of all that decides which kernels there are, and what they are compiled from and with."""
    import triton

    weights = Path(config.weights)
    model = weights / "config.json" if weights.is_dir() else weights
    stat = model.stat() if model.exists() else None
    seen = [str(torch.__version__), triton.__version__, page_size, capability, stat and (stat.st_size, stat.st_mtime_ns)]
    whole = sha256(msgspec.json.encode([config, *seen]))
    here = Path(__file__).parent
    for folder in (here, here.parent / "models", Path(octavo_kernels.__file__).parent):
        for source in sorted(folder.rglob("*.py")):
            whole.update(source.read_bytes())
    return whole.hexdigest()


def _hire(config: EngineConfig, page_size: int, capability: tuple[int, int], tally: np.ndarray) -> list[ForkProcess]:
    """Start the workers. ``tally``: int32 [2], the kernels that they compiled so far, and whether one has said why it failed."""
    from octavo_kernels.precompile import Claims

    workers: list[ForkProcess] = []
    with TemporaryFile() as file:
        for index in range(min(usable_cores(), MOST_WORKERS)):
            work = config, page_size, capability, Claims(file), tally, os.getpid()
            worker = ForkProcess(target=_work, args=work, daemon=True)
            try:
                worker.start()
            except OSError as error:
                log.warning("No more than %d workers could be started: %s", index, error)
                break
            workers.append(worker)
    return workers


def _work(
    config: EngineConfig, page_size: int, capability: tuple[int, int], claims: "Claims", tally: np.ndarray, parent: int
) -> None:
    """A worker's life."""
    from octavo.runtime.outline import launch_everything
    from octavo_kernels.precompile import compile_only

    die_with_parent(parent)
    name_process("octavo-compile")
    torch.set_num_threads(1)
    sys.modules["torch._dynamo"] = torch._dynamo = _NoCompiler("torch._dynamo")

    def count() -> None:
        tally[0] += 1  # if two do so at once, one is lost: it is for the log

    try:
        compile_only(capability, claims, count)
        launch_everything(config, page_size)
    except LoadFailed:
        sys.exit(1)  # the engine comes to it too, and says why
    except Exception:
        if not tally[1]:
            tally[1] = 1
            log.exception("A worker that compiles kernels has failed")
        sys.exit(1)


class _NoCompiler(ModuleType):
    """Stands for ``torch._dynamo``: operations on ``meta`` tensors would import seconds of it to say what it need not compile."""

    @staticmethod
    def disable(function: Any, *_: Any, **__: Any) -> Any:
        """There is nobody who would compile ``function``."""
        return function

    def __getattr__(self, name: str) -> Any:
        """Whoever asks for more gets the real one."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        __import__(self.__name__)
        return getattr(sys.modules[self.__name__], name)
