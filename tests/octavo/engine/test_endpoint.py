"""The door between front ends and an engine, both ends of it in this process: what may come through it, and what waits at it."""

import asyncio
import resource
import select
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from octavo.engine.client import EngineClient
from octavo.engine.endpoint import Endpoint
from octavo.engine.messages import EngineCommand, EngineFrame, EngineOutput, Submit
from octavo.errors import EngineDead, InvalidRequest

from .engine_process import RawFrontEnd
from .fakes import make_request

MANY = 40
PIECE = 20_000  # 40 of these are more than any socket takes that nobody reads


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "door")


@pytest.fixture
def endpoint(path: str) -> Iterator[Endpoint]:
    endpoint = Endpoint(path)
    yield endpoint
    endpoint.close(0)


def hear(endpoint: Endpoint, count: int) -> list[tuple[bytes, EngineCommand]]:
    """The next ``count`` commands."""
    heard: list[tuple[bytes, EngineCommand]] = []
    while len(heard) < count:
        endpoint.wait(seconds=30)
        heard += endpoint.commands()
    return heard


def is_sent_away(endpoint: Endpoint, stranger: RawFrontEnd) -> bool:
    while not select.select([stranger.socket], [], [], 0)[0]:
        endpoint.wait(seconds=30)
        assert list(endpoint.commands()) == []
    return stranger.socket.recv(1) == b""


def told(number: int) -> EngineFrame:
    return EngineFrame(outputs=[EngineOutput(number, [number] * PIECE)])


class Kept:
    """A sink that keeps tokens, and the ids of all that says more."""

    def __init__(self) -> None:
        self.said: list[int] = []

    def hear(self, output: EngineOutput) -> None:
        self.said.append(output.id)

    def hear_token(self, token_id: int) -> None:
        self.said.append(token_id)


async def heard(endpoint: Endpoint, count: int) -> list[tuple[bytes, EngineCommand]]:
    """The next ``count`` commands, while the loop turns."""
    heard: list[tuple[bytes, EngineCommand]] = []
    async with asyncio.timeout(30):
        while len(heard) < count:
            await asyncio.sleep(0)
            heard += endpoint.commands()
    return heard


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not done():
            await asyncio.sleep(0)


@pytest.mark.parametrize("first", [b"", b"me", b"1.2.3", b"\x93\x01", msgspec.msgpack.encode(Submit([make_request(1)]))])
def test_who_does_not_say_a_name_first_is_sent_away(endpoint: Endpoint, path: str, first: bytes) -> None:
    with RawFrontEnd(path, first) as stranger, RawFrontEnd(path) as front_end:
        front_end.submit(make_request(1))
        assert [client for client, _ in hear(endpoint, 1)] == [b"1000000.1"]
        assert is_sent_away(endpoint, stranger)
        assert endpoint.send({}) == []


def test_a_frame_longer_than_a_name_is_not_waited_for(endpoint: Endpoint, path: str) -> None:
    with RawFrontEnd(path, name=None) as stranger, RawFrontEnd(path) as front_end:
        stranger.socket.sendall(struct.pack("=I", 2**32 - 1))
        front_end.submit(make_request(1))
        hear(endpoint, 1)
        assert is_sent_away(endpoint, stranger)


def test_a_name_belongs_to_one_front_end(endpoint: Endpoint, path: str) -> None:
    with RawFrontEnd(path, b"7.1") as first, RawFrontEnd(path, b"7.1") as second:
        first.submit(make_request(1))
        assert [client for client, _ in hear(endpoint, 1)] == [b"7.1"]
        assert is_sent_away(endpoint, second)
        assert endpoint.send({b"7.1": told(3)}) == []
        assert [output.id for output in first.receive().outputs] == [3]


def test_a_frame_may_come_in_any_pieces(endpoint: Endpoint, path: str) -> None:
    with RawFrontEnd(path, name=None) as front_end:
        frames = (b"8.1", msgspec.msgpack.encode(Submit([make_request(5)])))
        for byte in b"".join(struct.pack("=I", len(frame)) + frame for frame in frames):
            front_end.socket.sendall(bytes([byte]))
            assert endpoint.send({}) == []
        ((client, command),) = hear(endpoint, 1)
        assert (client, [request.id for request in command.requests]) == (b"8.1", [5])


def test_what_one_does_not_read_waits_and_holds_up_nobody(endpoint: Endpoint, path: str) -> None:
    with RawFrontEnd(path, b"7.1") as slow, RawFrontEnd(path, b"7.2") as quick:
        for front_end in (slow, quick):
            front_end.submit(make_request(1))
        hear(endpoint, 2)
        for number in range(MANY):
            assert endpoint.send({b"7.1": told(number), b"7.2": EngineFrame(outputs=[EngineOutput(number)])}) == []
            assert [output.id for output in quick.receive().outputs] == [number]
        for number in range(MANY):
            list(endpoint.commands())
            (output,) = slow.receive().outputs
            assert (output.id, len(output.token_ids)) == (number, PIECE)


def test_who_is_behind_is_heard_all_the_same(endpoint: Endpoint, path: str) -> None:
    with RawFrontEnd(path, b"7.1") as slow:
        slow.submit(make_request(1))
        hear(endpoint, 1)
        for number in range(MANY):
            endpoint.send({b"7.1": told(number)})
        while select.select([slow.socket], [], [], 0)[0]:
            slow.socket.recv(1 << 20)
        slow.submit(make_request(2))
        assert [client for client, _ in endpoint.commands()] == [b"7.1"]


def test_who_cannot_be_let_in_waits_and_keeps_nobody_busy(endpoint: Endpoint, path: str, caplog: pytest.LogCaptureFixture) -> None:
    with RawFrontEnd(path, b"7.1") as first, RawFrontEnd(path, b"7.2") as second:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limit[1]))
        try:
            for _ in range(3):
                assert list(endpoint.commands()) == []
                assert not endpoint.has_something()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        assert len(caplog.records) == 1
        for front_end in (first, second):
            front_end.submit(make_request(1))
        came: list[bytes] = []
        while len(came) < 2:
            came += [client for client, _ in endpoint.commands()]
        assert sorted(came) == [b"7.1", b"7.2"]


def test_who_leaves_is_told_of_once(endpoint: Endpoint, path: str) -> None:
    with RawFrontEnd(path, b"7.1") as idle, RawFrontEnd(path, b"7.2") as stalled, RawFrontEnd(path, b"7.3") as stays:
        for front_end in (idle, stalled, stays):
            front_end.submit(make_request(1))
        hear(endpoint, 3)
        for number in range(MANY):
            assert endpoint.send({b"7.2": told(number)}) == []
        idle.socket.close()
        stalled.socket.close()
        gone: list[bytes] = []
        while len(gone) < 2:
            endpoint.wait(seconds=30)
            assert list(endpoint.commands()) == []
            gone += endpoint.send({b"7.3": told(1)})
        assert sorted(gone) == [b"7.1", b"7.2"]
        assert endpoint.send({b"7.3": told(1)}) == []
        assert endpoint.send({b"7.1": told(1), b"7.3": told(1)}) == [b"7.1"]


def test_a_client_hears_all_in_order(endpoint: Endpoint, path: str) -> None:
    async def main() -> None:
        client, sink = EngineClient(path), Kept()
        client.submit(make_request(1), sink)
        ((name, _),) = await heard(endpoint, 1)
        for number in range(1000):
            endpoint.send({name: EngineFrame(struct.pack("=q", 1), struct.pack("=q", number))})
        await until(lambda: not list(endpoint.commands()) and len(sink.said) == 1000)
        assert sink.said == list(range(1000))
        client.close()

    asyncio.run(main())


def test_what_was_said_last_is_heard(path: str) -> None:
    async def main() -> None:
        endpoint, client, sink = Endpoint(path), EngineClient(path), Kept()
        for number in range(MANY):
            client.submit(make_request(number), sink)
        name, _ = (await heard(endpoint, 1))[0]
        for number in range(MANY):
            endpoint.send({name: told(number)})
        await asyncio.get_running_loop().run_in_executor(None, endpoint.close, 30)
        await until(lambda: len(sink.said) == MANY)
        client.submit(make_request(MANY), sink)
        await asyncio.sleep(0)
        client.fail_all(EngineDead("It is gone."))
        assert sink.said == [*range(MANY), *range(MANY + 1)]  # none has ended but by that
        client.close()

    asyncio.run(main())


def test_what_cannot_be_sent_is_refused_to_who_asks_for_it_alone(endpoint: Endpoint, path: str) -> None:
    async def main() -> None:
        client, sink = EngineClient(path), Kept()
        client.submit(make_request(1), sink)
        for request in (make_request(2, cache_salt="\ud800"), make_request(3, priority=2**64)):
            with pytest.raises(InvalidRequest, match="valid Unicode text, and integers of 64 bits"):
                client.submit(request, sink)
        client.submit(make_request(4), sink)
        ((_, command),) = await heard(endpoint, 1)
        assert [request.id for request in command.requests] == [1, 4]
        client.close()

    asyncio.run(main())


def test_long_prompts_arrive_whole(endpoint: Endpoint, path: str) -> None:
    """The engine reads nothing at first, and the client goes on all the same."""

    async def main() -> None:
        client, prompt = EngineClient(path), list(range(PIECE))
        for number in range(MANY):
            client.submit(make_request(number, prompt), Kept())
            await asyncio.sleep(0)
        came = [request for _, command in await heard(endpoint, MANY) for request in command.requests]
        assert [request.id for request in came] == list(range(MANY))
        assert all(request.prompt_token_ids == prompt for request in came)
        client.close()

    asyncio.run(main())


def test_who_comes_when_the_engine_has_gone_waits_for_the_reason(path: str) -> None:
    async def main() -> None:
        client, sink = EngineClient(path), Kept()
        client.submit(make_request(1), sink)
        await asyncio.sleep(0)
        client.abort(1)
        client.submit(make_request(2), sink)
        client.fail_all(EngineDead("It is gone."))
        assert sink.said == [2]
        with pytest.raises(EngineDead, match=r"It is gone\."):
            client.submit(make_request(3), sink)
        client.close()
        client.close()

    asyncio.run(main())


def test_many_requests_of_one_turn_are_not_held_back_for_the_last_and_samples_stay_together(endpoint: Endpoint, path: str) -> None:
    """To read a request takes long enough that the engine should begin with the first of many meanwhile."""

    async def submit_and_hear() -> list[list[int]]:
        client = EngineClient(path)
        for number in range(10):
            for sample in range(3):
                client.submit(make_request(10 * number + sample, sample_index=sample), Kept())
        early = [command for _, command in hear(endpoint, 1)]  # the loop has not turned
        later = list[EngineCommand]()
        while sum(len(command.requests) for command in [*early, *later] if isinstance(command, Submit)) < 30:
            later += [command for _, command in await heard(endpoint, 1)]
        client.close()
        return [[request.id for request in command.requests] for command in [*early, *later] if isinstance(command, Submit)]

    groups = asyncio.run(submit_and_hear())
    assert [number for group in groups for number in group] == [10 * number + sample for number in range(10) for sample in range(3)]
    assert all(group[0] % 10 == 0 and group[-1] % 10 == 2 for group in groups), "samples of a request are torn apart"
