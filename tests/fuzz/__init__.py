"""Fuzzers of both transports: right requests, damaged at random. ``python -m fuzz`` is the long mode, the tests the short one."""

import sys
from pathlib import Path

# The server under test and its tiny model are those of the serving tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "octavo" / "serving"))
