"""A real engine process over real sockets, without a model: what front ends and the supervisor see of it."""

import asyncio
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from octavo.engine.client import EngineClient
from octavo.engine.control import EngineFailed, FrontEndGone
from octavo.engine.messages import EngineOutput, EngineRequest, FinishReason, Submit
from octavo.errors import EngineDead, ErrorKind

from .engine_process import PATIENCE_MS, EngineProcess, RawFrontEnd, engine_process
from .fakes import expected_answer, make_info, make_request, outputs_of

INFO = make_info(max_model_len=4096, num_pages=4096)
ENDLESS = {"max_tokens": 4000, "ignore_eos": True}
SLOW = {"hf_overrides": {"step_seconds": 0.01}}


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    with engine_process(max_queue_size=2) as engine:
        yield engine


class Answer:
    """A sink that keeps what it hears."""

    def __init__(self, client: EngineClient, request: EngineRequest) -> None:
        self.outputs: list[EngineOutput] = []
        self._first, self._last = asyncio.Event(), asyncio.Event()
        client.submit(request, self)

    def hear(self, output: EngineOutput) -> None:
        self.outputs.append(output)
        self._first.set()
        if output.finish is not None:
            self._last.set()

    def hear_token(self, token_id: int) -> None:
        self.outputs.append(EngineOutput(0, [token_id]))

    async def begun(self) -> None:
        await asyncio.wait_for(self._first.wait(), PATIENCE_MS / 1000)

    async def ended(self) -> list[int]:
        await asyncio.wait_for(self._last.wait(), PATIENCE_MS / 1000)
        return [token for output in self.outputs for token in output.token_ids]

    async def error(self) -> tuple[ErrorKind, str]:
        await self.ended()
        error = self.outputs[-1].error
        assert error is not None
        return error.kind, error.text


def test_answers_reach_the_front_end_that_asked(engine: EngineProcess) -> None:
    async def main() -> None:
        clients = [EngineClient(engine.requests) for _ in range(3)]
        asked = [
            (client, make_request(client.next_id(), [number, at], max_tokens=30))
            for number, client in enumerate(clients)
            for at in range(3)
        ]
        answers = [Answer(client, request) for client, request in asked]
        for (_, request), answer in zip(asked, answers, strict=True):
            assert await answer.ended() == expected_answer(request, INFO)[0]
        for client in clients:
            client.close()

    asyncio.run(main())
    engine.stats_when_idle()


def test_abort_silences_a_request_and_frees_its_pages(engine: EngineProcess) -> None:
    async def main() -> None:
        client = EngineClient(engine.requests)
        request_id = client.next_id()
        answer = Answer(client, make_request(request_id, **ENDLESS))
        await answer.begun()
        client.abort(request_id)
        client.abort(request_id)
        heard = len(answer.outputs)
        other = Answer(client, make_request(client.next_id(), max_tokens=3, ignore_eos=True))
        assert len(await other.ended()) == 3
        assert len(answer.outputs) == heard
        client.close()

    asyncio.run(main())
    engine.stats_when_idle()


def test_the_queue_is_full(engine: EngineProcess) -> None:
    async def main() -> None:
        client = EngineClient(engine.requests)
        answers = [Answer(client, make_request(client.next_id(), **ENDLESS)) for _ in range(11)]
        assert await answers[10].error() == (ErrorKind.OVERLOADED, "Exceeds maximum queue size")
        client.close()

    asyncio.run(main())
    engine.stats_when_idle()


def test_a_bad_request_harms_nobody(engine: EngineProcess) -> None:
    async def main() -> None:
        client = EngineClient(engine.requests)
        bad = Answer(client, make_request(client.next_id(), [10**6]))
        good = Answer(client, make_request(client.next_id(), max_tokens=3, ignore_eos=True))
        assert (await bad.error())[0] is ErrorKind.INVALID_REQUEST
        assert len(await good.ended()) == 3
        client.close()

    asyncio.run(main())


def test_malformed_frames_are_dropped(engine: EngineProcess) -> None:
    for order in (b"\xc1", msgspec.msgpack.encode([3, {"salt": 1}]).replace(b"salt", b"sal\xff")):
        engine.order_raw(order)
    with RawFrontEnd(engine.requests) as front_end:
        out_of_range = msgspec.msgpack.encode([1, [[1, [1], {"temperature": -5.0}]]])
        no_text = msgspec.msgpack.encode(Submit([make_request(4, cache_salt="salt")])).replace(b"salt", b"sal\xff")
        for frame in (b"", b"\xc1", b"\x93\x01\x02\x03", msgspec.msgpack.encode([7, []]), out_of_range, no_text):
            front_end.send(frame)
        front_end.submit(make_request(5, max_tokens=1))
        (output,) = front_end.receive().outputs
        assert (output.id, output.finish) == (5, FinishReason.LENGTH)


def test_one_frame_per_step_and_front_end(engine: EngineProcess) -> None:
    with RawFrontEnd(engine.requests) as front_end:
        front_end.submit(*(make_request(i, max_tokens=4, ignore_eos=True) for i in range(5)))
        for _ in range(4):
            frame = front_end.receive()
            assert sorted((output.id, len(output.token_ids)) for output in outputs_of(frame)) == [(i, 1) for i in range(5)]
        assert not select.select([front_end.socket], [], [], 0.05)[0]


def test_an_idle_engine_sleeps(engine: EngineProcess) -> None:
    engine.stats_when_idle()
    process = psutil.Process(engine.process.pid)
    before = process.cpu_times()
    time.sleep(0.5)
    after = process.cpu_times()
    assert (after.user + after.system) - (before.user + before.system) <= 0.05


def test_a_front_end_that_vanishes_takes_its_requests_along(engine: EngineProcess) -> None:
    async def main() -> None:
        client = EngineClient(engine.requests)
        answers = [Answer(client, make_request(client.next_id(), **ENDLESS)) for _ in range(10)]
        await answers[0].begun()
        client.close()
        with pytest.raises(EngineDead):
            client.submit(make_request(99), print)

    asyncio.run(main())
    engine.stats_when_idle()


def test_the_supervisor_can_name_a_front_end_that_is_gone() -> None:
    with engine_process(**SLOW) as engine:
        with RawFrontEnd(engine.requests, b"77.1") as dead, RawFrontEnd(engine.requests, b"777.1") as alive:
            for front_end in (dead, alive):
                front_end.submit(make_request(1, **ENDLESS))
                front_end.receive()
            assert engine.stats().running == 2
            engine.order(FrontEndGone(77))
            assert engine.stats().running == 1
        engine.stats_when_idle()


def test_a_sink_that_fails_harms_no_other(engine: EngineProcess) -> None:
    async def main() -> None:
        client = EngineClient(engine.requests)
        client.submit(make_request(client.next_id(), max_tokens=3), lambda output: 1 / 0)
        other = Answer(client, make_request(client.next_id(), max_tokens=3, ignore_eos=True))
        assert len(await other.ended()) == 3
        client.close()

    asyncio.run(main())


def test_fail_all_ends_every_request_and_refuses_new_ones(engine: EngineProcess) -> None:
    async def main() -> None:
        client = EngineClient(engine.requests)
        answer = Answer(client, make_request(client.next_id(), **ENDLESS))
        await answer.begun()
        client.fail_all(EngineDead("It is gone."))
        assert await answer.error() == (ErrorKind.ENGINE_DEAD, "It is gone.")
        with pytest.raises(EngineDead, match=r"It is gone\."):
            client.submit(make_request(client.next_id()), print)
        client.close()

    asyncio.run(main())
    engine.stats_when_idle()


def test_a_failing_step_ends_the_engine_and_everybody_reads_the_first_cause() -> None:
    text = "The engine has stopped after an error: RuntimeError: the device caught fire in kernel.cu at "

    async def main(address: str) -> None:
        client = EngineClient(address)
        answers = [Answer(client, make_request(client.next_id(), **ENDLESS)) for _ in range(12)]
        for answer in answers:
            assert await answer.error() == (ErrorKind.ENGINE_DEAD, text)
        client.close()

    with engine_process(hf_overrides={"fail_at": 3}) as engine:
        asyncio.run(main(engine.requests))
        report = engine.report()
        assert isinstance(report, EngineFailed)
        assert (report.error.kind, report.error.text) == (ErrorKind.ENGINE_DEAD, text)
        assert engine.wait() == 1


def test_a_model_that_cannot_be_loaded_is_reported() -> None:
    with engine_process(ready=False, hf_overrides={"load_error": "no tensor q_proj in /models/m/1/x.safetensors"}) as engine:
        report = engine.report()
        assert isinstance(report, EngineFailed)
        assert report.error.kind is ErrorKind.LOAD_FAILED
        assert report.error.text == "The model could not be loaded: ValueError: no tensor q_proj in x.safetensors"
        assert engine.wait() == 1


@pytest.mark.parametrize("busy", [False, True])
def test_sigterm_stops_at_once(busy: bool) -> None:
    with engine_process(**SLOW) as engine, RawFrontEnd(engine.requests) as front_end:
        if busy:
            front_end.submit(make_request(1, **ENDLESS))
            front_end.receive()
        engine.process.send_signal(signal.SIGINT)
        engine.process.send_signal(signal.SIGTERM)
        assert engine.wait() == -signal.SIGTERM


def test_the_engine_dies_with_its_supervisor() -> None:
    supervisor = """
        import sys, time
        sys.path.insert(0, sys.argv[1])
        from tests.octavo.engine.engine_process import engine_process
        with engine_process() as engine:
            print(engine.process.pid, flush=True)
            time.sleep(60)
    """
    root = str(Path(__file__).parents[3])
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(supervisor), root], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        engine = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    assert not psutil.wait_procs([engine], timeout=10)[1]
