"""A front end that dies at its first start: before the file exists that ``OCTAVO_TEST_STARTED`` names."""

import os
import sys
from pathlib import Path

from octavo.serving import frontend

if __name__ == "__main__":
    started = Path(os.environ["OCTAVO_TEST_STARTED"])
    if not started.exists():
        started.touch()
        sys.exit(1)
    frontend.main()
