"""``EngineThread`` when it is closed while others ask: nobody waits for ever, and everybody hears why."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator

import pytest

from octavo.config import EngineConfig
from octavo.errors import EngineDead
from octavo.offline import thread as module
from octavo.offline.thread import EngineThread


class IdleEngine:
    """Starts and ends at once."""

    def __init__(self, _: EngineConfig) -> None:
        pass

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass


async def one() -> AsyncGenerator[int]:
    await asyncio.sleep(0)
    yield 1


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineThread]:
    monkeypatch.setattr(module, "OfflineEngine", IdleEngine)
    made = EngineThread(None)
    yield made
    made.close()


def outcome(engine: EngineThread) -> list[object]:
    """What ``iterate`` gives or raises, or nothing if it has not ended after a while."""
    heard: list[object] = []

    def ask() -> None:
        try:
            heard.append(list(engine.iterate(one)))
        except BaseException as error:
            heard.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(10)
    return heard


def test_a_call_after_the_end_hears_that_it_is_over(engine: EngineThread) -> None:
    assert outcome(engine) == [[1]]
    engine.close()
    (error,) = outcome(engine)
    assert isinstance(error, EngineDead)


def test_a_call_during_the_end_hears_that_it_is_over(engine: EngineThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread has seen its last task, or has closed its loop, when the call comes, and still lives."""
    ending, go_on = threading.Event(), threading.Event()
    close_loop = engine._loop.close

    def close_late() -> None:
        ending.set()
        go_on.wait(10)
        close_loop()

    monkeypatch.setattr(engine._loop, "close", close_late)
    closing = threading.Thread(target=engine.close)
    closing.start()
    assert ending.wait(10)
    threading.Timer(0.2, go_on.set).start()
    (error,) = outcome(engine)
    assert isinstance(error, EngineDead)
    closing.join(10)


def test_calls_that_race_the_end_all_end(engine: EngineThread) -> None:
    def ask_on() -> None:
        with pytest.raises(EngineDead):
            while True:
                list(engine.iterate(one))

    callers = [threading.Thread(target=ask_on, daemon=True) for _ in range(8)]
    for caller in callers:
        caller.start()
    engine.close()
    for caller in callers:
        caller.join(10)
    assert not any(caller.is_alive() for caller in callers)
