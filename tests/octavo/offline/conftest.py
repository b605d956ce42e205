"""One ``LLM`` over the tiny model for most of this family."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from octavo import LLM

sys.path.insert(0, str(Path(__file__).parent.parent / "serving"))

from tiny import write_snapshot

LANES = 8


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("offline") / "tiny"
    write_snapshot(folder)
    return folder


@pytest.fixture(scope="session")
def llm(snapshot: Path) -> Iterator[LLM]:
    made = LLM(snapshot, dtype="float32", device="cpu", max_num_seqs=LANES, scheduling_policy="priority")
    yield made
    made.close()
