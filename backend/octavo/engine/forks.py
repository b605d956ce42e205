"""A helper that forks a process for each job, and the limits of what it forks: for work that may not end or not stay small."""

import gc
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection


def fork_for_each(door: socket.socket, serve: Callable[[Connection], None]) -> None:
    """Fork whenever one end of a connection comes through ``door``, and ``serve`` it there; until ``door`` is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets children that have ended
    gc.collect()
    gc.freeze()  # what children share stays shared
    while True:
        data, fds, _, _ = socket.recv_fds(door, 1, 1)
        if not data:
            return
        if os.fork() == 0:
            door.close()
            os.close(0)
            serve(Connection(fds[0]))
            os._exit(0)
        os.close(fds[0])


@contextmanager
def limited_time(seconds: float) -> Iterator[None]:
    """Have the kernel end this process if the body takes more CPU time than that."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)


def limit_memory(size: int) -> None:
    """Give this process ``size`` bytes more than it has of what it may write, and no dump of its core.

    Of all addresses there would be too few for threads with an arena of the allocator each, which reserves 64 MiB before anything
    in it is used; and threads that share one wait for one another.
    """
    with open("/proc/self/statm") as file:
        has = int(file.read().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (has + size, has + size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
