"""What a line of the log holds, and that nothing gets around it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import octavo
from octavo.logs import LogFormat

SCRIPT = """
import logging, sys, warnings
from octavo.logs import LogFormat, LogSettings, configure_logs, of_request
configure_logs("a 100% process", LogSettings(format=LogFormat(sys.argv[1])))
log = logging.getLogger("octavo.somewhere")
log.warning("two\\nlines of %s;\\n", "text", extra=of_request("x" * 500))
log.warning("no UTF-8: %s", "caf\\udce9")
warnings.warn("a warning of others")
raise ValueError("\\udce9: the end")
"""


def lines_of(format: LogFormat) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, format],
        capture_output=True, text=True, check=False, env={"PYTHONPATH": str(Path(octavo.__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 1
    return done.stderr.splitlines()


def test_whatever_happens_is_one_json_object_a_line() -> None:
    first, unspelled, second, third = (json.loads(line) for line in lines_of(LogFormat.JSON))
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "WARNING", "process": "a 100% process", "message": "two\nlines of text;\n", "logger": "octavo.somewhere",
        "request_id": "x" * 128,
    }  # fmt: skip
    assert unspelled["message"] == r"no UTF-8: caf\udce9"
    assert second["logger"] == "py.warnings" and "a warning of others" in second["message"]
    assert third["level"] == "CRITICAL" and third["exception"].endswith(r"ValueError: \udce9: the end")
    assert "request_id" not in second and "exception" not in second


@pytest.mark.parametrize("format", [LogFormat.DEFAULT, LogFormat.ISO8601])
def test_text_is_for_people_and_only_a_trace_has_lines_of_its_own(format: LogFormat) -> None:
    lines = lines_of(format)
    text = "\n".join(lines)
    assert lines[0].endswith(" WARNING a 100% process: two lines of text;")
    assert lines[2].split(" WARNING ")[1].startswith("a 100% process: ") and "a warning of others" in lines[2]
    assert r" WARNING a 100% process: no UTF-8: caf\udce9" in text
    assert " CRITICAL a 100% process: The process ends" in lines[3] and text.endswith(r"ValueError: \udce9: the end")
