"""The step loop, without sockets."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from octavo.engine.core import EngineCore
from octavo.engine.messages import EngineFrame, Submit
from octavo.engine.pacing import LEAST
from octavo.engine.step import Masks, StepInput, StepOutput

from .fakes import FakeRunner, Made, make_config, make_info, make_request


@pytest.mark.parametrize("runs_ahead", [0, 1])
def test_chunks_follow_the_time_that_steps_take(runs_ahead: int) -> None:
    """Steps that take no time leave room for more, whether or not the loop runs ahead."""
    config = make_config(max_num_batched_tokens=100, itl_target_ms=1000.0)
    core = EngineCore(config, FakeRunner(make_info(num_pages=128), runs_ahead=runs_ahead))
    core.handle(b"1.1", Submit([make_request(1, max_tokens=60, ignore_eos=True)]))
    for _ in range(5):
        core.step()
    core.handle(b"1.1", Submit([make_request(2, [1] * 120, max_tokens=2)]))
    while not core.scheduler.idle:
        core.step()
    assert core.scheduler.pacer is not None
    assert core.scheduler.pacer.limit > LEAST


class Finished(Exception):
    """Ends a loop that has no end."""


class Door:
    """Front ends and supervisor at once. A request arrives while the engine is warming up for the ``after``-th time."""

    socket = None

    def __init__(self, runner: FakeRunner, after: int) -> None:
        self.runner, self.after, self.cold_when_served = runner, after, None

    def watch(self, socket: None) -> None:
        pass

    def has_something(self) -> bool:
        return self.runner.cold <= self.after and not self.runner.steps

    def wait(self) -> None:
        if self.runner.steps:
            raise Finished

    def commands(self) -> Iterator[tuple[bytes, Submit]]:
        if not self.runner.steps:
            yield b"1.1", Submit([make_request(1, max_tokens=3, stop_token_ids=[*range(40)])])

    def orders(self) -> Iterator[None]:
        return iter(())

    def send(self, frames: dict[bytes, EngineFrame]) -> list[bytes]:
        if frames and self.cold_when_served is None:
            self.cold_when_served = self.runner.cold
        return []


class LateRunner(FakeRunner):
    """Counts the steps that were launched and not waited for."""

    waiting = 0

    def launch(self, step: StepInput) -> "Late":
        self.waiting += 1
        return Late(self, super().launch(step))


class Late(NamedTuple):
    runner: LateRunner
    made: Made

    def draw(self, masks: Masks) -> None:
        self.made.draw(masks)

    def wait(self) -> StepOutput:
        self.runner.waiting -= 1
        return self.made.wait()


class Attentive(Door):
    """Notes how many steps were in flight when the engine went to sleep."""

    def wait(self) -> None:
        self.in_flight = self.runner.waiting
        super().wait()


def test_no_step_is_in_flight_while_the_engine_sleeps() -> None:
    """Its end would be learned with the next request, and the time in between be taken for a step's."""
    runner = LateRunner(make_info(num_pages=128), runs_ahead=1)
    door = Attentive(runner, after=0)
    with pytest.raises(Finished):
        EngineCore(make_config(), runner).run(door, door)
    assert door.in_flight == 0


def test_an_idle_engine_warms_up_until_a_request_comes() -> None:
    runner = FakeRunner(make_info(num_pages=128))
    runner.cold = 10
    door = Door(runner, after=7)
    with pytest.raises(Finished):
        EngineCore(make_config(), runner).run(door, door)
    assert door.cold_when_served == 7
    assert runner.cold < 0  # and goes on with it afterwards
