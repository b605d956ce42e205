"""What holds for every test: none changes the environment that later ones, and their servers, start with."""

import os
from collections.abc import Iterator

import pytest

# pytest's, torch's, and what an engine in this process says to its own threads
OWN = {"PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR", "GOMP_SPINCOUNT"}


@pytest.fixture(autouse=True)
def _environment_stays() -> Iterator[None]:
    before = dict(os.environ)
    yield
    changed = sorted(name for name in before.keys() | os.environ.keys() if before.get(name) != os.environ.get(name))
    assert not set(changed) - OWN, f"the test left other values in the environment: {changed}"
