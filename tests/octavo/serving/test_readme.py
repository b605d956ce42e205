"""The README's first lines do what they say: the default repository is served, and the quick start prints an answer."""

import re
import subprocess
import sys
from pathlib import Path

from server import running

ROOT = Path(__file__).parents[3]
ADDRESS = "localhost:8001"


def test_the_quick_start_prints_a_sensible_answer(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert code.count(ADDRESS) == 1
    with running(ROOT / "model_repository", log=tmp_path / "log") as server:
        command = [sys.executable, "-c", code.replace(ADDRESS, server.grpc)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
