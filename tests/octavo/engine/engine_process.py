"""Starts ``fake_engine.py`` as a supervisor would, and talks to it."""

import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import zmq

from octavo.engine.control import EngineOrder, EngineReady, EngineReport, EngineSpec, StatsQuery, StatsReply, encode
from octavo.engine.messages import EngineFrame, EngineRequest, EngineStats, Submit

from .fakes import make_config

PATIENCE_MS = 30_000


class EngineProcess:
    """One engine process and the supervisor's end of its control channel."""

    def __init__(self, folder: str, **settings: object) -> None:
        self.requests = f"{folder}/requests.sock"
        self._control = zmq.Context.instance().socket(zmq.ROUTER)
        self._control.bind(f"ipc://{folder}/control.sock")
        spec = EngineSpec(
            config=make_config(**settings),
            requests=self.requests,
            control=f"ipc://{folder}/control.sock",
            identity="fake/1",
            parent=os.getpid(),
        )
        self.process = subprocess.Popen([sys.executable, Path(__file__).with_name("fake_engine.py")], stdin=subprocess.PIPE)
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(spec))
        self.process.stdin.close()

    def report(self) -> EngineReport:
        """The next report."""
        assert self._control.poll(PATIENCE_MS), "the engine says nothing"
        identity, frame = self._control.recv_multipart()
        assert identity == b"fake/1"
        return msgspec.msgpack.decode(frame, type=EngineReport)

    def order(self, order: EngineOrder) -> None:
        self.order_raw(encode(order))

    def order_raw(self, frame: bytes) -> None:
        self._control.send_multipart((b"fake/1", frame))

    def stats(self) -> EngineStats:
        self.order(StatsQuery())
        reply = self.report()
        assert isinstance(reply, StatsReply)
        return reply.stats

    def stats_when_idle(self) -> EngineStats:
        """The first reading with nothing running, waiting or held."""
        for _ in range(300):
            stats = self.stats()
            if not (stats.running or stats.waiting or stats.pages_used):
                return stats
            time.sleep(0.02)
        raise AssertionError(f"the engine does not come to rest: {stats}")

    def wait(self) -> int:
        return self.process.wait(PATIENCE_MS / 1000)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._control.close(linger=0)


class RawFrontEnd:
    """A front end that sends what a test likes. Waits for what it reads."""

    def __init__(self, address: str, name: bytes | None = b"1000000.1") -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE_MS / 1000)
        self.socket.connect(address)
        if name is not None:
            self.send(name)

    def __enter__(self) -> "RawFrontEnd":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, frame: bytes) -> None:
        self.socket.sendall(struct.pack("=I", len(frame)) + frame)

    def submit(self, *requests: EngineRequest) -> None:
        self.send(msgspec.msgpack.encode(Submit([*requests])))

    def receive(self) -> EngineFrame:
        (length,) = struct.unpack("=I", self._read(4))
        return msgspec.msgpack.decode(self._read(length), type=EngineFrame)

    def _read(self, size: int) -> bytes:
        data = self.socket.recv(size, socket.MSG_WAITALL)
        assert len(data) == size, "the engine has hung up"
        return data


@contextmanager
def engine_process(ready: bool = True, **settings: object) -> Iterator[EngineProcess]:
    with tempfile.TemporaryDirectory(prefix="oct") as folder:
        engine = EngineProcess(folder, **settings)
        try:
            assert not ready or isinstance(engine.report(), EngineReady)
            yield engine
        finally:
            engine.close()
