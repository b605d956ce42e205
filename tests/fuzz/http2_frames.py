"""HTTP/2 frames in one process: right sessions with frames damaged, moved and cut, against a connection without a socket."""

import asyncio
import logging
import random
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from hpack import Encoder
from raw_http2 import ECHO, HANG, LIMITS, TALK, headers, message

from fuzz import damage
from fuzz.finding import Finding
from octavo.serving.http2 import frames
from octavo.serving.http2.call import Call, Handler
from octavo.serving.http2.connection import Connection, Host
from octavo.serving.http2.faults import Code
from octavo.serving.http2.status import CallRefused, Status
from octavo.serving.http2.turn import Turn
from octavo.serving.http2.unary import Conversation, Unary

SMALL = msgspec.structs.replace(LIMITS, max_message=3000, max_streams=5)
HIGH_WATER = 4000
TURNS = 6
Frame = tuple[int, int, int, bytes]


class FakeTransport(asyncio.Transport):
    """Keeps what is written. From time to time it is full, until it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.unread, self.closing, self.reading, self.paused = bytearray(), 0, False, True, False

    def write(self, data: Any) -> None:
        assert not self.closing, "written to after the end"
        self.written += data
        self.unread += len(data)

    def get_write_buffer_size(self) -> int:
        return self.unread

    def is_closing(self) -> bool:
        return self.closing

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """The client may still send."""

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True


class Session:
    """One connection with handlers of its own; ``open`` calls have not heard of their end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: ThreadPoolExecutor) -> None:
        self.open: set[str] = set()
        self._count = 0
        host = Host(SMALL, self._route, Turn(loop), threads, set(), asyncio.Event())
        self.connection, self.transport = Connection(host), FakeTransport()
        self.connection.connection_made(self.transport)

    def _route(self, call: Call) -> Handler:
        name = f"{self._count} {call.method}"
        self._count += 1
        if call.method == TALK:
            self.open.add(name)
            return _Talk(call, lambda: self.open.remove(name))
        if call.method in (ECHO, HANG):
            self.open.add(name)
            return Unary(call, _echo if call.method == ECHO else _hang, lambda: self.open.remove(name))
        raise CallRefused(Status.UNIMPLEMENTED, "Method not found!")

    def water(self) -> None:
        """Tell of a full socket, and then of an empty one, as a transport does."""
        if self.transport.paused:
            self.transport.unread, self.transport.paused = 0, False
            self.connection.resume_writing()
        elif self.transport.unread > HIGH_WATER:
            self.transport.paused = True
            self.connection.pause_writing()


class _Talk(Conversation):
    def __init__(self, call: Call, ended: Callable[[], None]) -> None:
        super().__init__(call, lambda data: data)
        self._ended = ended

    def closed(self) -> None:
        self._ended()


async def _echo(data: bytes, _: Call) -> bytes:
    return data


async def _hang(_: bytes, __: Call) -> bytes:
    return await asyncio.get_running_loop().create_future()


class _Errors(logging.Handler):
    """What our own code has logged as a bug."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(self.format(record))


def http2_frames(count: int, seed: int) -> Counter[str]:
    """Read ``count`` damaged sessions; how they ended. Raises ``Finding``."""
    errors, log = _Errors(), logging.getLogger("octavo.serving.http2")
    log.addHandler(errors)
    try:
        return asyncio.run(_all(count, random.Random(seed), errors))
    finally:
        log.removeHandler(errors)


async def _all(count: int, chance: random.Random, errors: _Errors) -> Counter[str]:
    loop, ends = asyncio.get_running_loop(), Counter[str]()
    loop.set_exception_handler(lambda _, context: errors.seen.append(str(context)))
    with ThreadPoolExecutor(1) as threads:
        for _ in range(count):
            session, chunks = Session(loop, threads), list(_chunks(chance))
            try:
                ends[await _one(session, chunks)] += 1
            except Exception as error:
                raise Finding(b"|".join(chunks), error) from error
            if errors.seen:
                raise Finding(b"|".join(chunks), errors.seen[0])
    return ends


async def _one(session: Session, chunks: list[bytes]) -> str:
    connection, transport = session.connection, session.transport
    for chunk in chunks:
        if transport.closing:
            break
        connection.data_received(chunk)
        await asyncio.sleep(0)
        session.water()
    for _ in range(TURNS):
        await asyncio.sleep(0)
        session.water()
    left = connection._held
    transport.closing = True
    connection.connection_lost(None)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not session.open, f"calls did not hear of their end: {session.open}"
    assert connection._held == 0 <= left <= SMALL.max_held, f"{left} bytes were held, {connection._held} still are"
    return _end(bytes(transport.written))


def _end(written: bytes) -> str:
    """How the server ended the connection, if it did. What it wrote must be whole frames, within what a client allows."""
    at, end = 0, "it went on"
    while at < len(written):
        high, low, kind, _, _ = frames.HEAD.unpack_from(written, at)
        size = high << 8 | low
        at += frames.HEAD_SIZE + size
        assert at <= len(written), "a frame is cut off"
        assert kind <= frames.WINDOW_UPDATE and size <= 65_536, f"frame {kind} of {size} bytes"
        assert end == "it went on", "frames follow on the end"
        if kind == frames.GOAWAY:
            code = Code(int.from_bytes(written[at - size + 4 : at - size + 8]))
            assert code is not Code.INTERNAL_ERROR, "a bug"
            end = code.name
    return end


def _chunks(chance: random.Random) -> Iterator[bytes]:
    """A damaged session, in as many pieces as a network may make of it."""
    sent = _session(chance)
    for _ in range(chance.choice((0, 0, 1, 1, 2, 4))):
        _damage(sent, chance)
    said = b"".join(frames.frame(*one) for one in sent)
    if chance.random() < 0.2:
        said = damage.damaged(said, chance)
    preface = frames.PREFACE if chance.random() < 0.98 else damage.damaged(frames.PREFACE, chance)
    said = preface + frames.settings([]) + said
    size = chance.choice((20, 500, 500, 5000, len(said)))
    for at in range(0, len(said), size):
        yield said[at : at + size]


def _session(chance: random.Random) -> list[Frame]:
    """Calls of all kinds on one connection, as a client may make them, their frames in any order that is allowed."""
    encoder, sent, opened = Encoder(), [], []
    for stream in range(1, 2 * chance.randint(1, 6), 2):
        more = chance.choice(({}, {}, {"grpc_encoding": "gzip"}, {"grpc_timeout": "1n"}, {"x": "y" * 100}))
        block = encoder.encode(headers(chance.choice((ECHO, TALK, HANG, "/x")), **more))
        cut = chance.randrange(len(block)) if chance.random() < 0.2 else len(block)
        sent.append((frames.HEADERS, frames.END_HEADERS if cut == len(block) else 0, stream, block[:cut]))
        if cut < len(block):
            sent.append((frames.CONTINUATION, frames.END_HEADERS, stream, block[cut:]))
        opened.append(stream)
        sent += [_more(chance, opened) for _ in range(chance.randrange(5))]
    return sent


def _more(chance: random.Random, opened: list[int]) -> Frame:
    stream, word = chance.choice(opened), struct.pack(">I", chance.choice((0, 1, 100, 65_535, 2**31 - 1)))
    match chance.randrange(8):
        case 0:
            return frames.RST_STREAM, 0, stream, word
        case 1:
            return frames.WINDOW_UPDATE, 0, chance.choice((0, stream)), word
        case 2:
            values = chance.choice((4, 5, 2, 1, 6, 99)), chance.choice((0, 1, 16_384, 65_535, 2**31 - 1))
            return frames.SETTINGS, 0, 0, struct.pack(">HI", *values)
        case 3:
            return frames.PING, chance.choice((0, 1)), 0, bytes(8)
        case _:
            data = message(bytes(chance.choice((0, 1, 100, 3000, 3001))), chance.choice((0, 0, 0, 1)))
            return frames.DATA, chance.choice((0, 1)), stream, data[: chance.choice((3, 50, len(data)))]


def _damage(sent: list[Frame], chance: random.Random) -> None:
    """Change, add, move, double or take away a frame."""
    at = chance.randrange(len(sent))
    kind, flags, stream, payload = sent[at]
    match chance.randrange(8):
        case 0:
            sent[at] = chance.randrange(12), flags, stream, payload
        case 1:
            sent[at] = kind, chance.randrange(256), stream, payload
        case 2:
            sent[at] = kind, flags, chance.choice((0, 1, 2, 3, 5, 7, 2**31 - 1)), payload
        case 3:
            sent[at] = kind, flags, stream, damage.damaged(payload, chance)[:16_384]
        case 4:
            sent.insert(chance.randrange(len(sent)), sent[at])
        case 5:
            sent.insert(chance.randrange(len(sent)), sent.pop(at))
        case 6:
            sent[at:at] = [sent[at]] * chance.choice((2, 50))
        case _ if len(sent) > 1:
            del sent[at]
