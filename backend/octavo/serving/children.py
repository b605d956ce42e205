"""``Child``: a process of ours that cannot outlive us. Knows neither what it runs nor what is said to it after its start."""

import asyncio
import logging
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from typing import NamedTuple

log = logging.getLogger(__name__)
KILL_PATIENCE = 5.0


class Programs(NamedTuple):
    """The modules that run as a server's child processes; each reads its setup from its standard input."""

    front_end: str = "octavo.serving.frontend"
    engine: str = "octavo.engine.process"


PROGRAMS = Programs()


class Child:
    """A running ``python -m module`` whose standard input was ``setup``.

    Signals from a terminal do not reach the child: it is in a session of its own, and only we decide when it stops.
    """

    def __init__(self, name: str, process: Process) -> None:
        """Wrap a started process; use ``spawn``."""
        self.name = name
        self._process = process
        self.started_at = time.monotonic()
        self.exited = asyncio.ensure_future(process.wait())

    @classmethod
    async def spawn(cls, name: str, module: str, setup: bytes) -> "Child":
        """Start ``module`` and hand it ``setup``."""
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, stdin=PIPE, start_new_session=True)
        assert process.stdin is not None
        process.stdin.write(setup)
        process.stdin.close()
        return cls(name, process)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not exited."""
        return not self.exited.done()

    def describe_exit(self) -> str:
        """How it ended, as the end of a sentence; only after ``exited``."""
        status = self.exited.result()
        if status >= 0:
            return f"exited with code {status}"
        return f"was killed by signal {signal.Signals(-status).name}"

    async def stop(self, patience: float = KILL_PATIENCE) -> None:
        """Ask it to end (SIGTERM), and end it (SIGKILL) if it has not after ``patience`` seconds."""
        if self.running:
            self._process.terminate()
            await asyncio.wait({self.exited}, timeout=patience)
        await self.kill()

    def signal_kill(self) -> None:
        """Have it end now, without waiting for that."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, signum: signal.Signals) -> None:
        """Send it a signal, unless it has exited."""
        if self.running:
            self._process.send_signal(signum)

    async def kill(self) -> None:
        """End it now, and wait until it has exited, unless it takes longer than any process should."""
        self.signal_kill()
        await asyncio.wait({self.exited}, timeout=KILL_PATIENCE)
        if self.running:
            log.error(
                "The %s process %d does not end although it was killed: its device or a file system hangs.", self.name, self.pid
            )
