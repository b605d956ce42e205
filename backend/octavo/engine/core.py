"""``EngineCore``: the step loop. Knows a scheduler, a runner and two sockets by what they do; no tensor and no text."""

import logging
import time
from collections import deque
from typing import NamedTuple, NoReturn, Protocol

from octavo.config import EngineConfig
from octavo.engine.control import (
    ChangeLogs,
    ControlChannel,
    EngineOrder,
    FrontEndGone,
    PictureQuery,
    PictureReply,
    StatsQuery,
    StatsReply,
)
from octavo.engine.endpoint import Endpoint
from octavo.engine.messages import EngineCommand, EngineInfo, Submit
from octavo.engine.picture import take_picture
from octavo.engine.scheduler import Outputs, Scheduler
from octavo.engine.step import Masks, StepInput, StepOutput
from octavo.errors import OctavoError
from octavo.logs import change_logs

log = logging.getLogger(__name__)


class Launched(Protocol):
    """A step on its way through the device. Its tokens are drawn in a part of its own: masks may be made during the first one."""

    def draw(self, masks: Masks) -> None:
        """Have its tokens drawn: once, before the next step is launched and before ``wait``; ``masks`` of rows that yield one."""
        ...

    def wait(self) -> StepOutput:
        """What it made, once it has ended."""
        ...


class Runner(Protocol):
    """A loaded model on a device. Whatever it raises is the end of the engine.

    Steps run in the order in which they are launched. A step writes the keys and values of all its tokens, layer by layer,
    before any row of it reads them. ``runs_ahead``: how many steps may be launched while the tokens of another are awaited.
    """

    info: EngineInfo
    runs_ahead: int

    def launch(self, step: StepInput) -> Launched:
        """Have one step computed after those launched before, up to what its tokens are drawn from."""
        ...

    def warm_up(self) -> bool:
        """Use a moment in which nothing else is to be done for what would hold up a later step; False if there is nothing left."""
        ...


class InFlight(NamedTuple):
    """A step that has been launched. ``planned``: when."""

    planned: float
    step: StepInput
    launched: Launched


class EngineCore:
    """One engine's life between being loaded and being done."""

    def __init__(self, config: EngineConfig, runner: Runner) -> None:
        """``runner`` has loaded what ``config`` names."""
        self.info = runner.info
        self.scheduler = Scheduler(config, runner.info)
        self._runner = runner
        self._in_flight: deque[InFlight] = deque()
        self._undrawn: InFlight | None = None  # it waits for masks
        self._last_end = time.monotonic()
        self._stalled = False  # all that is open waits for a grammar

    def run(self, endpoint: Endpoint, control: ControlChannel) -> NoReturn:
        """Serve until the process is ended. An exception is fatal: the caller reports it and the process ends."""
        endpoint.watch(control)
        while True:
            if self.scheduler.idle and not self._in_flight:
                while not endpoint.has_something() and self._runner.warm_up():
                    pass
                endpoint.wait()
            elif self._stalled:
                endpoint.wait([self.scheduler.matches.grammars.socket()], self.scheduler.patience(time.monotonic()))
            for client, command in endpoint.commands():
                self.handle(client, command)
            for order in control.orders():
                self.obey(order, control)
            for client in endpoint.send(self.step()):
                left = self.scheduler.abort_front_end(client)
                if left:
                    log.info("Front end %s is gone; open requests that it had: %d", client.decode(errors="replace"), left)

    def step(self) -> Outputs:
        """Launch one step, if there is anything to compute, and take the results of the oldest if enough are in flight.

        A step that waits for masks is in the device meanwhile. Its tokens are drawn when the next one is planned, so that the
        device goes from the one to the other.
        """
        now = time.monotonic()
        step = self.scheduler.schedule(now)
        self._draw()
        if step is not None:
            self._launch(InFlight(now, step, self._runner.launch(step)))
        self._stalled = step is None and not self._in_flight
        if len(self._in_flight) > (self._runner.runs_ahead if step is not None else 0):
            self._take()
        return self.scheduler.collect()

    def _launch(self, launched: InFlight) -> None:
        self._in_flight.append(launched)
        if self.scheduler.matches.known(launched.step):
            launched.launched.draw(self.scheduler.matches.masks(launched.step))
        else:
            self._undrawn = launched

    def _draw(self) -> None:
        """Have the tokens drawn of the step that waits for masks, if there is one."""
        undrawn, self._undrawn = self._undrawn, None
        if undrawn is not None:
            while self._in_flight[0] is not undrawn:
                self._take()
            undrawn.launched.draw(self.scheduler.masks(undrawn.step))

    def refuse_all(self, error: OctavoError) -> Outputs:
        """The engine is done for: what to tell each front end of its open requests."""
        self.scheduler.refuse_all(error)
        return self.scheduler.collect()

    def _take(self) -> None:
        if self._in_flight[0] is self._undrawn:
            self._draw()
        planned, step, launched = self._in_flight.popleft()
        output = launched.wait()
        now = time.monotonic()
        if self.scheduler.pacer is not None:  # a step begins when it is planned, or when the one before it has ended
            self.scheduler.pacer.took(now - max(planned, self._last_end), step.num_decodes, len(step.token_ids))
        self._last_end = now
        self.scheduler.update(step, output)

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
            case PictureQuery():
                control.report(PictureReply(take_picture(self.scheduler, time.monotonic())))
            case ChangeLogs(logs):
                change_logs(logs)
            case FrontEndGone(pid):
                for client in self.scheduler.clients():
                    if client.startswith(b"%d." % pid):
                        self.scheduler.abort_front_end(client)
