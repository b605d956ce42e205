"""The engine process of ``octavo bench frontend``: a real one, but for its core, which makes tokens without a model or a schedule.

Run as ``python -m octavo.bench.source`` in place of ``octavo.engine.process``. Knows no client and nothing of what is measured.
"""

import itertools
import logging
import os
import time
from array import array
from pathlib import Path
from typing import NamedTuple, NoReturn

from octavo.config import EngineConfig
from octavo.engine import process
from octavo.engine.control import ControlChannel, FrontEndGone, StatsQuery, StatsReply
from octavo.engine.endpoint import Endpoint
from octavo.engine.messages import (
    EngineCommand,
    EngineFrame,
    EngineInfo,
    EngineOutput,
    EngineRequest,
    EngineStats,
    FinishReason,
    Submit,
)
from octavo.engine.outbox import Outputs
from octavo.errors import ErrorFrame, OctavoError

# How late a sleeping thread may be woken, in nanoseconds; Linux makes it 50,000 by itself.
SLACK = Path("/proc/self/timerslack_ns")
# An engine is at work when its tokens are ready. Who has slept for long is not, so it wakes early, makes them, and watches the
# clock. In seconds.
LONG, EARLY = 5e-3, 3e-4
INFO = EngineInfo(
    max_model_len=2**20,
    vocab_size=2**20,
    page_size=1,
    num_pages=0,
    dtype="none",
    eos_token_ids=[],
    weights_bytes=0,
    max_logprobs=0,
)


class Answer(NamedTuple):
    """How a request is answered: with ``length`` tokens, those of ``tokens`` over and over, ``rate`` a second (0: as can be)."""

    id: int
    tokens: list[int]
    length: int
    rate: int
    end: FinishReason = FinishReason.LENGTH


class Pace:
    """The answers to one front end that get their tokens at the same times: at whole multiples of a period, or in every step.

    ``due``: when the next are, in seconds of ``time.monotonic``. All is laid out when an answer begins or ends, so that a step
    costs next to nothing for each of the tokens between.
    """

    def __init__(self, rate: int) -> None:
        """There are none."""
        self.open: dict[int, Answer] = {}
        self._period = 1 / rate if rate else 0.0
        self._tick = 0
        self._first: dict[int, list[Answer]] = {}  # by the tick at which they begin
        self._last: dict[int, list[Answer]] = {}
        self._between: dict[int, itertools.cycle[int]] = {}
        self._ids: bytes | None = None

    @property
    def due(self) -> float:
        """Whether anybody gets one then depends on when the answers begin."""
        return self._tick * self._period

    def begin(self, answer: Answer, now: float) -> None:
        """The first token is due at the next whole multiple of the period."""
        first = int(now // self._period) + 1 if self._period else self._tick
        if self.open:
            first = max(first, self._tick)
        else:
            self._tick, self._first, self._last = first, {}, {}
        self.open[answer.id] = answer
        self._first.setdefault(first, []).append(answer)

    def abort(self, request_id: int) -> None:
        """Nobody wants the rest."""
        self.open.pop(request_id, None)
        self._between.pop(request_id, None)
        self._ids = None

    def step(self, frame: EngineFrame) -> int:
        """A token for everybody; how many that is."""
        tick, between = self._tick, self._between
        self._tick += 1
        before = len(frame.outputs)
        for answer in self._last.pop(tick, ()):
            if answer.id in self.open:
                token = next(between[answer.id])
                self.abort(answer.id)
                frame.outputs.append(EngineOutput(answer.id, [token], answer.end))
        if between:
            if self._ids is None:
                self._ids = array("q", between).tobytes()
            frame.ids += self._ids
            frame.token_ids += array("q", map(next, between.values())).tobytes()
        for answer in self._first.pop(tick, ()):
            if answer.id in self.open:
                frame.outputs.append(self._start(answer, tick))
        return len(between) + len(frame.outputs) - before

    def _start(self, answer: Answer, tick: int) -> EngineOutput:
        tokens = itertools.cycle(answer.tokens)
        first = [next(tokens)]
        if answer.length == 1:
            self.abort(answer.id)
            return EngineOutput(answer.id, first, answer.end, num_cached_tokens=0, queue_seconds=0)
        self._between[answer.id], self._ids = tokens, None
        self._last.setdefault(tick + answer.length - 1, []).append(answer)
        return EngineOutput(answer.id, first, num_cached_tokens=0, queue_seconds=0)


class TokenSource:
    """Repeats each prompt over and over, ``max_tokens`` tokens of it, a token a step for every request that is due.

    A request's ``seed`` says how many tokens a second it gets; without it, as many as can be. Tokens are due at whole multiples
    of that period on the system's monotonic clock; one that comes late delays no other.
    """

    def __init__(self, _: EngineConfig) -> None:
        """Ready at once."""
        self.info = INFO
        self._paces: dict[tuple[bytes, int], Pace] = {}  # by front end and rate
        self._made = 0

    def run(self, endpoint: Endpoint, control: ControlChannel) -> NoReturn:
        """Serve until the process is ended."""
        SLACK.write_text("1")
        endpoint.watch(control)
        while True:
            if not self._paces:
                endpoint.wait()
            for client, command in endpoint.commands():
                self._handle(client, command)
            for order in control.orders():
                match order:
                    case StatsQuery():
                        running = sum(len(pace.open) for pace in self._paces.values())
                        control.report(StatsReply(EngineStats(running=running, generation_tokens=self._made)))
                    case FrontEndGone(pid):
                        self._forget([client for client, _ in self._paces if client.startswith(b"%d." % pid)])
            self._forget(endpoint.send(self._step()))

    def refuse_all(self, error: OctavoError) -> Outputs:
        """What to tell each front end of its open requests."""
        frames: Outputs = {}
        for (client, _), pace in self._paces.items():
            refusals = [EngineOutput(number, finish=FinishReason.ERROR, error=ErrorFrame.of(error)) for number in pace.open]
            frames.setdefault(client, EngineFrame()).outputs += refusals
        return frames

    def answer(self, request: EngineRequest) -> Answer:
        """How to answer a request."""
        sampling = request.sampling
        return Answer(request.id, request.prompt_token_ids, sampling.max_tokens or 16, sampling.seed or 0)

    def _handle(self, client: bytes, command: EngineCommand) -> None:
        if isinstance(command, Submit):
            now = time.monotonic()
            for request in command.requests:
                answer = self.answer(request)
                pace = self._paces.get((client, answer.rate))
                if pace is None:
                    pace = self._paces[client, answer.rate] = Pace(answer.rate)
                pace.begin(answer, now)
        else:
            for key, pace in list(self._paces.items()):
                if key[0] == client:
                    for request_id in command.ids:
                        pace.abort(request_id)
                    self._drop_if_done(key)

    def _forget(self, clients: list[bytes]) -> None:
        if clients:
            self._paces = {key: pace for key, pace in self._paces.items() if key[0] not in clients}

    def _drop_if_done(self, key: tuple[bytes, int]) -> None:
        if not self._paces[key].open:
            del self._paces[key]

    def _step(self) -> Outputs:
        """A token for everybody to whom the next is due, when it is. They are made before: a device has them when its step ends."""
        frames: Outputs = {}
        if not self._paces:
            return frames
        due = min(pace.due for pace in self._paces.values())
        watching = slept_long(due)
        now = max(due, time.monotonic())
        for key, pace in list(self._paces.items()):
            if pace.due <= now:
                frame = frames.get(key[0]) or EngineFrame()
                made = pace.step(frame)
                if made:
                    self._made += made
                    frames[key[0]] = frame
                    self._drop_if_done(key)
        wait_until(due, watching)
        return frames


def slept_long(due: float) -> bool:
    """Sleep until shortly before ``due`` (``time.monotonic``) if that is long; whether it was."""
    left = due - time.monotonic()
    if left > LONG:
        time.sleep(left - EARLY)
    return left > LONG


def wait_until(due: float, watching: bool) -> None:
    """Return at ``due``, or at once if that is over; ``watching`` the clock, or asleep."""
    if not watching:
        time.sleep(max(0.0, due - time.monotonic()))
    while time.monotonic() < due:
        pass


if __name__ == "__main__":
    code = process.main(TokenSource)
    logging.shutdown()
    os._exit(code)
