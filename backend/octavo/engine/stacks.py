"""``write_stacks_on_signal``: where the threads of a process stand, whatever it does. Knows nothing of engines."""

import faulthandler
import os
import signal
from pathlib import Path

SIGNAL = signal.SIGUSR1


def write_stacks_on_signal(socket: str) -> None:
    """From now on, ``SIGNAL`` has this process add the stacks of its threads to its ``stacks_file``."""
    signal.signal(SIGNAL, signal.SIG_IGN)  # whoever sees the file may send it
    faulthandler.register(SIGNAL, stacks_file(socket, os.getpid()).open("w"), all_threads=True)


def stacks_file(socket: str, pid: int) -> Path:
    """The file of a process, which lies beside the ipc ``socket`` of its supervisor, in a folder of mode 0700."""
    return Path(socket.removeprefix("ipc://")).parent / f"stacks-{pid}"
