"""The engine process: ``python -m octavo.engine.process`` with an ``EngineSpec`` as JSON on its standard input.

Exits with 1 after it has reported the first cause of a failure. SIGTERM ends it at once, by the kernel: a
handler in Python would not run if the signal came just before an idle engine begins to wait. Only here the engine meets the
runtime, and only when the model is loaded.
"""

import gc
import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import NoReturn, Protocol

import msgspec
import zmq

from octavo.config import EngineConfig
from octavo.engine.control import ControlChannel, EngineFailed, EngineReady, EngineSpec
from octavo.engine.core import EngineCore, Runner
from octavo.engine.endpoint import Endpoint
from octavo.engine.lifeline import die_with_parent, name_process
from octavo.engine.messages import EngineInfo
from octavo.engine.scheduler import Outputs
from octavo.engine.stacks import write_stacks_on_signal
from octavo.errors import EngineDead, ErrorFrame, LoadFailed, OctavoError
from octavo.logs import configure_logs

log = logging.getLogger(__name__)

_LOCATION = re.compile(r"(?:/[^\s/:,'\"()]+)+/|\b0x[0-9a-fA-F]+\b")
_MAX_CAUSE = 300
LINGER = 1.0  # seconds


class Core(Protocol):
    """What serves requests once it is made: an ``EngineCore``, or what stands for one."""

    info: EngineInfo

    def run(self, endpoint: Endpoint, control: ControlChannel) -> NoReturn:
        """Serve until the process is ended. An exception is fatal."""
        ...

    def refuse_all(self, error: OctavoError) -> Outputs:
        """It is done for: what to tell each front end of its open requests."""
        ...


def configure_threads() -> None:
    """Say how OpenMP's threads wait for work; has an effect until torch is imported."""
    # Threads that spin for long between operations make a step many times slower when front ends or clients want a core;
    # threads that sleep at once make it half as fast when nobody does.
    os.environ.setdefault("GOMP_SPINCOUNT", "6000")


def load_runner(config: EngineConfig) -> Runner:
    """Load the model into this process."""
    configure_threads()
    gc.disable()  # next to nothing of what is imported and loaded is garbage, and to look for it takes a tenth of the time
    try:
        from octavo.runtime.runner import ModelRunner

        return ModelRunner(config)
    finally:
        gc.enable()


def load_core(config: EngineConfig) -> Core:
    """The engine, with the model in this process."""
    return EngineCore(config, load_runner(config))


def check_weights(config: EngineConfig) -> None:
    """Raise ``LoadFailed`` if the model cannot be loaded for what its files say."""
    configure_threads()
    import torch

    from octavo.models.loader import describe_model

    describe_model(config, torch.device("cpu"))


def main(load: Callable[[EngineConfig], Core] = load_core) -> int:
    """Read the spec, load, serve; returns the exit code."""
    spec = msgspec.json.decode(sys.stdin.buffer.read(), type=EngineSpec)
    die_with_parent(spec.parent)
    name_process("octavo-engine")
    write_stacks_on_signal(spec.control)
    configure_logs(spec.identity, spec.logs)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches all of us; the supervisor decides
    os.umask(0o077)
    control = ControlChannel(spec.control, spec.identity)
    try:
        if spec.check_only:
            check_weights(spec.config)
            return 0
        core, endpoint = load(spec.config), Endpoint(spec.requests)
    except Exception as error:
        log.exception("The model could not be loaded")
        control.report(EngineFailed(ErrorFrame.of(load_failure(error))))
        return 1
    else:
        return serve(core, endpoint, control)
    finally:
        zmq.Context.instance().destroy(linger=int(1000 * LINGER))


def serve(core: Core, endpoint: Endpoint, control: ControlChannel) -> int:
    """Run a loaded engine until it fails; returns the exit code."""
    gc.collect()
    gc.freeze()  # what is loaded stays: the collector need not walk it between steps
    control.report(EngineReady(core.info))
    try:
        core.run(endpoint, control)
    except Exception as error:
        log.exception("The engine has stopped")
        death = EngineDead(f"The engine has stopped after an error: {describe(error)}")
        control.report(EngineFailed(ErrorFrame.of(death)))
        endpoint.send(core.refuse_all(death))
        endpoint.close(LINGER)
        return 1


def load_failure(error: Exception) -> OctavoError:
    """What a client may read about ``error``."""
    return error if isinstance(error, OctavoError) else LoadFailed(f"The model could not be loaded: {describe(error)}")


def describe(error: Exception) -> str:
    """Type and first line, without folders and addresses."""
    text = _LOCATION.sub("", str(error).strip().partition("\n")[0])
    return f"{type(error).__name__}: {text}"[:_MAX_CAUSE]


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    os._exit(code)  # device libraries may hang or crash on their way out
