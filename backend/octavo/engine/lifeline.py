"""What ties a child process to its parent, by Linux's ``prctl``. Knows nothing of engines."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


def die_with_parent(parent: int) -> None:
    """Have this process killed when its parent ends, even by SIGKILL; exits at once if ``parent`` has ended already.

    Linux sends the signal when the *thread* that started this process ends: start children from a thread that stays.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("The parent process has ended.")


def name_process(name: str) -> None:
    """Name this process for ``ps`` and ``top``: at most 15 bytes of ``name`` are kept."""
    _prctl(_PR_SET_NAME, ctypes.create_string_buffer(name.encode()[:15]))


def _prctl(option: int, argument: int | ctypes.Array[ctypes.c_char]) -> None:
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")
