"""A front end whose first start fails, before the file exists that ``OCTAVO_TEST_STARTED`` names.

It exits, or hangs if ``OCTAVO_TEST_HANGS`` is set.
"""

import os
import sys
import threading
from pathlib import Path

from octavo.engine.lifeline import die_with_parent
from octavo.serving import frontend

if __name__ == "__main__":
    started = Path(os.environ["OCTAVO_TEST_STARTED"])
    if not started.exists():
        started.touch()
        if "OCTAVO_TEST_HANGS" in os.environ:
            die_with_parent(os.getppid())
            threading.Event().wait()
        sys.exit(1)
    frontend.main()
