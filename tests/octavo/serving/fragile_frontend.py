"""A front end whose first start fails, before the file exists that ``OCTAVO_TEST_STARTED`` names.

It exits, or hangs if ``OCTAVO_TEST_HANGS`` is set. Where ``OCTAVO_TEST_READS`` names a file, the second start is special instead:
it makes that file as it begins to read a tokenizer, and goes on when somebody has taken it away.
"""

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from octavo.engine.lifeline import die_with_parent
from octavo.serving import frontend, models
from octavo.text.tokenizer import Tokenizer, load_tokenizer


def load_slowly(path: str, *rest: Any) -> Tokenizer:
    """What ``load_tokenizer`` does, later."""
    reads = Path(os.environ["OCTAVO_TEST_READS"])
    reads.touch()
    while reads.exists():
        time.sleep(0.01)
    return load_tokenizer(path, *rest)


if __name__ == "__main__":
    started = Path(os.environ["OCTAVO_TEST_STARTED"])
    if "OCTAVO_TEST_READS" in os.environ:
        if started.exists():
            models.load_tokenizer = load_slowly
        started.touch()
    elif not started.exists():
        started.touch()
        if "OCTAVO_TEST_HANGS" in os.environ:
            die_with_parent(os.getppid())
            threading.Event().wait()
        sys.exit(1)
    frontend.main()
