"""The folder of a process group's sockets. Knows none of them."""

import os
import tempfile
from pathlib import Path

_LONGEST = 85


def private_directory() -> Path:
    """A new folder that only we may enter; whoever asks removes it. A socket's whole path has to fit into 107 bytes."""
    directory = tempfile.mkdtemp(prefix="octavo-")
    if len(os.fsencode(directory)) > _LONGEST:
        os.rmdir(directory)
        directory = tempfile.mkdtemp(prefix="octavo-", dir="/tmp")
    return Path(directory)
