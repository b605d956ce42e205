"""What the tests of ``k8s/`` share: their own modules, and the servers and clients of the serving tests."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "octavo" / "serving")]


@pytest.fixture(scope="module", autouse=True)
def _no_proxy() -> Iterator[None]:
    """Pods have addresses of the loopback interface that a machine's ``no_proxy`` may not name."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        yield
