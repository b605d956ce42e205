"""What ``docs/operations.md`` and ``docs/migrating.md`` name is there: alerts, metrics, flags."""

import re
from pathlib import Path

import typer.main
import yaml

from octavo.cli import app
from octavo.engine.messages import EngineStats
from octavo.repository.engine_arguments import ENGINE_ARGUMENTS, Treatment
from octavo.serving.engines import EngineTotals
from octavo.serving.http.app import http_routes
from octavo.serving.metrics import Reading, exposition
from octavo.serving.statistics import Counters

SOURCE = Path(__file__).parents[2]
OPERATIONS = (SOURCE / "docs" / "operations.md").read_text()
MIGRATING = (SOURCE / "docs" / "migrating.md").read_text()
# What is there, and what is here; of every row.
ROWS = [tuple(line.split(" | ", 1)) for line in MIGRATING.splitlines() if line.startswith("| ") and not line.startswith("| there")]
KEY = r"(?<![-\w])[a-z]+(?:_[a-z]+)+(?![-\w.])"


def test_every_alert_is_explained_and_no_other() -> None:
    rules = yaml.safe_load((SOURCE / "k8s" / "monitoring" / "rules.yaml").read_text())["spec"]["groups"]
    alerts = [rule["alert"] for group in rules for rule in group["rules"] if "alert" in rule]
    assert re.findall(r"^\| `(Octavo\w+)` \|", OPERATIONS, re.MULTILINE) == alerts


def test_metrics_that_are_named_are_exposed() -> None:
    text = exposition([Reading("m", 1, Counters(), EngineTotals(), EngineStats(), 16)]).decode()
    exposed = set(re.findall(r"^([a-z]\w+(?::\w+)?)\{", text, re.MULTILINE))
    named = set(re.findall(r"`((?:vllm:|nv_inference_|octavo:)\w+)`", OPERATIONS))
    assert named and named <= exposed


def test_keys_of_models_are_treated_as_is_said() -> None:
    arguments = {name: row.treatment for name, row in ENGINE_ARGUMENTS.items()}
    given = {key for _, here in ROWS for key in re.findall(rf'"({KEY})"', here)}
    refused = {key for there, here in ROWS if here.startswith("refused by name") for key in re.findall(KEY, there)}
    assert len(given) > 4 and {arguments[key] for key in given} == {Treatment.HONOURED}
    assert "tensor_parallel_size" in refused and {arguments[key] for key in refused} == {Treatment.REFUSED}


def test_paths_are_there_or_not_as_is_said() -> None:
    routes = {route.path for route in http_routes(None, None, None, 0, 0)}  # type: ignore[arg-type]
    paths = {(here, path) for there, here in ROWS for path in re.findall(r"`(?:GET )?(/[\w/.:]+)`", there)}
    kept = {path for here, path in paths if here.startswith("the same")}
    lost = {path for here, path in paths if here.startswith("not there")}
    assert {"/health", "/openai/v1/chat/completions"} <= kept
    for path in kept | lost:
        full = path if path.startswith(("/openai", "/v", "/health")) else f"/openai/v1{path}"
        assert (full in routes) == (path in kept), path


def test_flags_that_are_named_are_there() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    flags = {name for command in commands.values() for parameter in command.params for name in parameter.opts}
    ours = [line.split("|")[2] for line in MIGRATING.splitlines() if line.startswith("| ")]
    named = {flag for text in [OPERATIONS, *ours] for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)}
    assert len(named) > 10 and named <= flags
