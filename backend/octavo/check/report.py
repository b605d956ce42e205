"""Findings as a table for a terminal, or as JSON. Knows no flag."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from octavo.check.repository import Finding
from octavo.runtime.plan import MemoryPlan

_WIDEST = 1000
_COLUMNS = ("weights", "workspace", "KV cache", "in all", "tokens", "requests")


class Report(msgspec.Struct):
    """What ``--json`` writes; bytes are bytes."""

    models: Sequence[Finding]
    problems: int


def as_json(findings: Sequence[Finding]) -> str:
    """All findings as one JSON object."""
    report = Report(findings, sum(len(finding.problems) for finding in findings))
    return msgspec.json.format(msgspec.json.encode(report)).decode()


def show(findings: Sequence[Finding]) -> None:
    """Write notes and plans to standard output, as wide as they are."""
    for finding in findings:
        for note in finding.notes:
            print(note)
    if any(finding.plan for finding in findings):
        table, console = as_table(findings), Console()
        console.width = max(console.width, Measurement.get(console, console.options.update(max_width=_WIDEST), table).maximum)
        console.print(table)


def as_table(findings: Iterable[Finding]) -> Table:
    """The memory plans, a model a line. ``requests``: how many fit at once, by the tokens that each may come to have."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("model", "device", "dtype"):
        table.add_column(column, no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for finding in findings:
        if finding.plan is not None:
            table.add_row(f"{finding.model} {finding.version}", finding.device, finding.plan.dtype, *_figures(finding.plan))
    return table


def problems(findings: Iterable[Finding]) -> Iterator[str]:
    """A line for each problem, which begins with the model that has it."""
    for finding in findings:
        who = finding.model if finding.version is None else f"{finding.model} {finding.version}"
        yield from (f"{who}: {problem}" for problem in finding.problems)


def _figures(plan: MemoryPlan) -> list[str]:
    workspace = "–" if plan.workspace_bytes is None else size(plan.workspace_bytes)
    memory = [size(plan.weights_bytes), workspace, size(plan.kv_bytes), size(plan.total_bytes)]
    return [*memory, f"{plan.tokens:,}", f"{plan.requests:,} × {plan.max_model_len:,}"]


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
