"""What the tests of ``k8s/`` share: their own modules, and the servers and clients of the serving tests."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "octavo" / "serving")]
