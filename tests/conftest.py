"""What holds for every test: none changes the environment that later ones, and their servers, start with."""

import os
from collections.abc import Iterator

import pytest

# pytest's, torch's, and what an engine in this process says to its own threads
OWN = {"PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR", "GOMP_SPINCOUNT"}


@pytest.fixture(autouse=True)
def _environment_stays() -> Iterator[None]:
    before = {name: value for name, value in os.environ.items() if name not in OWN}
    yield
    assert {name: value for name, value in os.environ.items() if name not in OWN} == before
