"""What ``docs/operations.md`` and ``docs/migrating.md`` name is there: alerts, metrics, flags."""

import re
from pathlib import Path

import typer.main
import yaml

from octavo.cli import app
from octavo.engine.messages import EngineStats
from octavo.serving.engines import EngineTotals
from octavo.serving.metrics import Reading, exposition
from octavo.serving.statistics import Counters

SOURCE = Path(__file__).parents[2]
OPERATIONS = (SOURCE / "docs" / "operations.md").read_text()
MIGRATING = (SOURCE / "docs" / "migrating.md").read_text()


def test_every_alert_is_explained_and_no_other() -> None:
    rules = yaml.safe_load((SOURCE / "k8s" / "monitoring" / "rules.yaml").read_text())["spec"]["groups"]
    alerts = [rule["alert"] for group in rules for rule in group["rules"] if "alert" in rule]
    assert re.findall(r"^\| `(Octavo\w+)` \|", OPERATIONS, re.MULTILINE) == alerts


def test_metrics_that_are_named_are_exposed() -> None:
    text = exposition([Reading("m", 1, Counters(), EngineTotals(), EngineStats(), 16)]).decode()
    exposed = set(re.findall(r"^([a-z]\w+(?::\w+)?)\{", text, re.MULTILINE))
    named = set(re.findall(r"`((?:vllm:|nv_inference_|octavo:)\w+)`", OPERATIONS))
    assert named and named <= exposed


def test_flags_that_are_named_are_there() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    flags = {name for command in commands.values() for parameter in command.params for name in parameter.opts}
    ours = [line.split("|")[2] for line in MIGRATING.splitlines() if line.startswith("| ")]
    named = {flag for text in [OPERATIONS, *ours] for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)}
    assert len(named) > 10 and named <= flags
