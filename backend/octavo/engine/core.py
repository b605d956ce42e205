"""``EngineCore``: the step loop. Knows a scheduler, a runner and two sockets by what they do; no tensor and no text."""

import logging
import time
from typing import NoReturn, Protocol

from octavo.config import EngineConfig
from octavo.engine.control import ControlChannel, EngineOrder, FrontEndGone, StatsQuery, StatsReply
from octavo.engine.endpoint import Endpoint
from octavo.engine.messages import EngineCommand, EngineInfo, Submit
from octavo.engine.scheduler import Outputs, Scheduler
from octavo.engine.step import StepInput, StepOutput

log = logging.getLogger(__name__)


class Runner(Protocol):
    """A loaded model on a device.

    A step writes the keys and values of all its tokens, layer by layer, before any row of it reads them.
    """

    info: EngineInfo

    def execute(self, step: StepInput) -> StepOutput:
        """Compute one step; whatever it raises is the end of the engine."""
        ...


class EngineCore:
    """One engine's life between being loaded and being done."""

    def __init__(self, config: EngineConfig, runner: Runner) -> None:
        """``runner`` has loaded what ``config`` names."""
        self.info = runner.info
        self.scheduler = Scheduler(config, runner.info)
        self._runner = runner

    def run(self, endpoint: Endpoint, control: ControlChannel) -> NoReturn:
        """Serve until the process is ended. An exception is fatal: the caller reports it and the process ends."""
        endpoint.watch(control.socket)
        while True:
            if self.scheduler.idle:
                endpoint.wait()
            for client, command in endpoint.commands():
                self.handle(client, command)
            for order in control.orders():
                self.obey(order, control)
            for client in endpoint.send(self.step()):
                log.info("Front end %s is gone", client.decode(errors="replace"))
                self.scheduler.abort_front_end(client)

    def step(self) -> Outputs:
        """One step, if there is anything to compute, and what it made for each front end."""
        step = self.scheduler.schedule(time.monotonic())
        if step is not None:
            self.scheduler.update(step, self._runner.execute(step))
        return self.scheduler.collect()

    def handle(self, client: bytes, command: EngineCommand) -> None:
        """Do what a front end asks."""
        if not isinstance(command, Submit):
            self.scheduler.abort(client, command.ids)
            return
        now = time.monotonic()
        for request in command.requests:
            self.scheduler.submit(client, request, now)

    def obey(self, order: EngineOrder, control: ControlChannel) -> None:
        """Do what the supervisor asks."""
        match order:
            case StatsQuery():
                control.report(StatsReply(self.scheduler.stats()))
            case FrontEndGone(pid):
                for client in self.scheduler.clients():
                    if client.startswith(b"%d." % pid):
                        self.scheduler.abort_front_end(client)
