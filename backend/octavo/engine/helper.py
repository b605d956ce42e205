"""``Helper``: a process that forks another for each job, seen from who has the jobs. Its own side is in ``forks``. Knows no job."""

import socket
import subprocess
import sys
import threading
import weakref
from multiprocessing.connection import Connection


class Job:
    """A process that was forked for one job, or will have been. ``answered``: it has said something."""

    def __init__(self, connection: Connection, door: socket.socket) -> None:
        """``connection``: to the process. ``door``: to the helper that forks it."""
        self.connection = connection
        self.answered = False
        self._door = door

    def receive(self) -> bytes:
        """What it says next. Raises ``OSError`` or ``EOFError`` if it has ended."""
        said = self.connection.recv_bytes()
        self.answered = True
        return said

    def never_was(self) -> bool:
        """Whether the helper ended before it had made this process, so that the job is not what is wrong."""
        try:
            ended = self._door.recv(1, socket.MSG_DONTWAIT) == b""  # a helper says nothing on it
        except BlockingIOError:
            ended = False
        except ConnectionResetError:  # what was sent to it was not read
            ended = True
        return ended and not self.answered


class Helper:
    """One such process. Nothing runs before the first job; a helper that has died is started again by the next one. Thread-safe.

    It ends when nobody has it any more, and with its parent: then its standard input does. It is in a session of its own, as
    whoever signals our process group (a terminal, a notebook that ends) means us.
    """

    def __init__(self, module: str, setup: bytes = b"") -> None:
        """The helper runs ``module``, whose standard input is the door; ``setup`` comes through it before all jobs."""
        self._command = [sys.executable, "-m", module]
        self._setup = setup
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._door: socket.socket | None = None
        self._end: weakref.finalize[..., Helper] | None = None

    def job(self) -> Job:
        """A new process, of a new helper if the last one has ended."""
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            door = self._doorway()
            try:
                socket.send_fds(door, [b"."], [theirs.fileno()])
            except OSError:
                self._door = None
                door = self._doorway()
                socket.send_fds(door, [b"."], [theirs.fileno()])
        return Job(Connection(ours.detach()), door)

    def _doorway(self) -> socket.socket:
        if self._door is None or self._process is None or self._process.poll() is not None:
            self._door, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(self._command, stdin=theirs.fileno(), start_new_session=True)
            if self._end is not None:
                self._end.detach()
            self._end = weakref.finalize(self, _end, self._process, self._door)
            self._door.sendall(self._setup)
        return self._door


def _end(process: subprocess.Popen[bytes], door: socket.socket) -> None:
    """It has nothing to lose."""
    door.close()
    process.kill()
    process.wait()
