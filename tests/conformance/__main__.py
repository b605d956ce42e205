"""``python -m conformance VENV``: the client script against a real Triton and against Octavo, and what differs.

``VENV`` has nvidia-pytriton. What the real Triton answered is kept, so that the tests can compare with it where there is none.
"""

import json
import sys
from pathlib import Path

from conformance import script
from conformance.answers import Data, text_of
from conformance.client import ServerGone
from conformance.compare import complaints, differences, reasons
from conformance.octavo_server import LOADED, octavo
from octavo.bench.real_triton import real_triton

ATTEMPTS = 5
RECORDED = Path(__file__).parent / "triton.json"
MODELS = Path(__file__).parent / "triton_models"


def recorded() -> dict[str, Data]:
    """What a real Triton answered when this was last run."""
    answers: dict[str, Data] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return answers


def main(venv: Path) -> int:
    """Compare, print, and say by the exit code whether all is as the page says."""
    theirs = _ask_triton(venv)
    RECORDED.write_text(text_of(theirs), encoding="utf-8")
    with octavo() as server:
        ours = script.run(server.grpc, server.http)
    found = differences(theirs, ours)
    print(*found, sep="\n")
    wrong = complaints(found, reasons())
    print(f"\n{len(theirs)} cases, {len(found)} differences, {len(wrong)} of them or of their reasons unexpected", *wrong, sep="\n")
    return 1 if wrong else 0


def _ask_triton(venv: Path) -> dict[str, Data]:
    """A real Triton's answers to everything, from one that did not crash on the way."""
    for _ in range(ATTEMPTS - 1):
        try:
            with real_triton(venv, MODELS, LOADED) as server:
                return script.run(server.grpc, server.http)
        except ServerGone as crash:
            print(f"The real Triton is gone ({crash}); once more from the start.", file=sys.stderr)
    with real_triton(venv, MODELS, LOADED) as server:
        return script.run(server.grpc, server.http)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
