"""The step loop, without sockets."""

import pytest

from octavo.engine.core import EngineCore
from octavo.engine.messages import Submit
from octavo.engine.pacing import LEAST

from .fakes import FakeRunner, make_config, make_info, make_request


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
