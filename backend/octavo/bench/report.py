"""How a measurement is shown and kept: one table on the terminal, one JSON file. Knows nothing of what was measured."""

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table


class Row(NamedTuple):
    """One figure. ``peer``: the same figure of the system compared with; ``goal``: the ratio to it, or the bound, to reach.

    ``paired``: the median of the ratios of single rounds, where both were measured in turn.
    """

    what: str
    value: float
    unit: str
    peer: float | None = None
    goal: str = ""
    paired: float | None = None

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's."""
        if self.paired is not None:
            return self.paired
        return None if not self.peer else self.value / self.peer


def show(title: str, rows: list[Row], peer_name: str | None = None) -> None:
    """Print ``rows`` as a table."""
    table = Table(title=title, title_justify="left")
    table.add_column("figure")
    table.add_column("octavo", justify="right")
    if peer_name:
        table.add_column(peer_name, justify="right")
        table.add_column("ratio", justify="right")
    table.add_column("unit")
    table.add_column("to reach")
    for row in rows:
        compared = [_number(row.peer), "" if row.ratio is None else f"{row.ratio:.2f} x"] if peer_name else []
        table.add_row(row.what, _number(row.value), *compared, row.unit, row.goal)
    Console().print(table)


def write(path: Path, title: str, settings: Mapping[str, object], rows: list[Row]) -> None:
    """Write ``rows`` with what is needed to repeat them to ``path`` as JSON."""
    figures = [{**row._asdict(), "ratio": row.ratio} for row in rows]
    machine = {"python": platform.python_version(), "system": platform.system(), "machine": platform.machine()}
    path.write_text(json.dumps({"benchmark": title, "machine": machine, "settings": settings, "figures": figures}, indent=1) + "\n")


def percentile(values: list[float], fraction: float) -> float:
    """The value below which ``fraction`` of ``values`` lie (nearest rank); 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))] if ordered else 0.0


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"
