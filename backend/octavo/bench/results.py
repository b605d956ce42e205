"""What measurements of one engine keep: JSON files of ours, and the rows of a peer's. Knows no engine and no table."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from octavo.bench.itl import ItlResult
from octavo.bench.phases import ITL, START
from octavo.bench.startup import StartUp


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """One phase: ``n`` requests, ``isl`` tokens in and ``osl`` out each, from their submission to the last token."""

    phase: str
    n: int
    isl: int
    osl: int
    seconds: float

    @property
    def ms_per_step(self) -> float:
        """Milliseconds for each new token of a request, prefill included."""
        return self.seconds / self.osl * 1e3

    @property
    def output_rate(self) -> float:
        """New tokens per second."""
        return self.n * self.osl / self.seconds

    @property
    def input_rate(self) -> float:
        """Prompt tokens per second."""
        return self.n * self.isl / self.seconds


class Rates(msgspec.Struct, frozen=True):
    """Some steps' seconds, and what was read and multiplied in them, per second and as a share of the measured ceiling."""

    steps: int
    seconds: float
    gb_s: float
    of_copy: float
    tflop_s: float
    of_matmul: float


class PhaseResult(Timing, frozen=True, kw_only=True):
    """One phase of ours.

    ``whole``: all its steps. ``decode``: those after the last first token, if all requests ran at once and there are any.
    ``floor``: seconds that it takes at the least. ``ttft_p50``: seconds from the submission of all to a first token.
    ``step_p50_ms`` and ``step_max_ms`` are of the steps that made tokens. ``host_us``: microseconds of a step in which the host
    did not wait for the device; on a GPU most of them pass while it computes the step before.
    """

    output_tok_s: float
    input_tok_s: float
    ms_per_token: float
    ttft_p50: float
    step_p50_ms: float
    step_max_ms: float
    host_us: float
    floor: float
    whole: Rates
    decode: Rates | None


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """All of one run. ``ceilings``: copy_gb_s and matmul_tflop_s."""

    benchmark: str = "offline"
    machine: dict[str, str | None]
    settings: dict[str, object]
    ceilings: dict[str, float]
    start: StartUp
    phases: list[PhaseResult]
    itl: ItlResult | None = None

    @property
    def progress(self) -> str:
        """What was measured last."""
        if self.itl is not None:
            return "itl: done"
        return f"{self.phases[-1].phase}: {self.phases[-1].seconds:.3f} s" if self.phases else f"start: {self.start.seconds:.1f} s"


class Line(msgspec.Struct, frozen=True):
    """One kernel of a step, at the same place of every layer: how often, microseconds each, and the rate of what it must read."""

    name: str
    part: str
    times: int
    microseconds: float
    gb_s: float | None


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A step of ``rows`` rows. ``copy_gb_s``: the device's ceiling."""

    benchmark: str = "profile"
    machine: dict[str, str | None]
    model: str
    rows: int
    context: int
    copy_gb_s: float
    lines: list[Line]


class PeerResult(msgspec.Struct, frozen=True):
    """What another system's run has to compare: phases by name, seconds from its start to ready, gaps between tokens."""

    name: str
    phases: Mapping[str, Timing]
    start: float | None
    itl: ItlResult | None


def write(result: Measurement | Profile, path: Path) -> None:
    """Replace ``path`` with all of it as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def read_ours(path: Path) -> Measurement:
    """A measurement that ``write`` wrote. Raises ``ValueError`` if it is not one."""
    return msgspec.json.decode(path.read_bytes(), type=Measurement)


def read_peer(path: Path) -> PeerResult:
    """A list of rows, each with its ``phase``, or another measurement of ours; the file's name is the peer's.

    Raises ``ValueError`` if it is neither.
    """
    content = msgspec.json.decode(path.read_bytes(), type=list[dict] | Measurement)
    if isinstance(content, Measurement):
        return PeerResult(path.stem, {phase.phase: phase for phase in content.phases}, content.start.seconds, content.itl)
    rows = {row["phase"]: row for row in content}
    start, itl = rows.pop(START, None), rows.pop(ITL, None)
    return PeerResult(
        name=path.stem,
        phases={name: msgspec.convert(row, Timing) for name, row in rows.items()},
        start=None if start is None else start["seconds"],
        itl=None if itl is None else msgspec.convert(itl, ItlResult),
    )
