"""Offline measurements as Markdown: one of ours alone, and ours beside peers'. Knows results only."""

from collections.abc import Iterator, Mapping, Sequence

from octavo.bench.itl import ItlResult
from octavo.bench.results import Line, Measurement, PeerResult, PhaseResult, Profile, Rates, Timing

_FEW = 64  # up to so many requests a phase is about its steps, above it about its rate
_NOTHING = "–"
_LONGEST_NAME = 40


def phases_table(ours: Measurement) -> str:
    """Every phase: times and rates, what was read or multiplied a second, and the share of the floor.

    ms/token counts the prefill in, decode ms/step are the steps after the last request's first token.
    """
    header = [
        "phase", "in/out × requests", "s", "ms/token", "decode ms/step", "host µs/step", "output tok/s", "input tok/s", "rate",
        "of ceiling", "of floor",
    ]  # fmt: skip
    rows = [
        [
            phase.phase, _load(phase), _number(phase.seconds), _number(phase.ms_per_step), _decode_ms(phase),
            _number(phase.host_us), _number(phase.output_rate), _number(phase.input_rate), *_rate(phase),
            f"{phase.floor / phase.seconds:.0%}",
        ]
        for phase in ours.phases
    ]  # fmt: skip
    return _markdown(header, rows)


def comparison_table(ours: Measurement, peers: Sequence[PeerResult]) -> str:
    """Every phase's main figure beside the peers' and the floor; the ratio is how many times as fast as the best peer we are."""
    header = [
        "phase",
        "in/out × requests",
        "unit",
        "octavo",
        *(peer.name for peer in peers),
        "ratio",
        "rate",
        "of ceiling",
        "floor",
    ]
    return _markdown(header, [*_phase_rows(ours, peers), *_other_rows(ours, peers)])


def notes(ours: Measurement) -> list[str]:
    """The device's ceilings, the parts of the start, and the gaps, in a sentence each."""
    start = ours.start
    lines = [
        f"{ours.machine['device']}: copies {ours.ceilings['copy_gb_s']:,.0f} GB/s, "
        f"multiplies {ours.ceilings['matmul_tflop_s']:,.2f} TFLOP/s.",
        f"Start to first token: {start.seconds:.1f} s (imports {start.imports:.1f}, weights {start.weights:.1f}, "
        f"cache and graphs {start.cache_and_graphs:.1f}, first token {start.first_token:.2f}).",
    ]
    if ours.itl is not None:
        gaps = ours.itl
        lines.append(
            f"Gaps, ms: {gaps.quiet_p50_ms:.2f} (p50) and {gaps.quiet_p99_ms:.2f} (p99) in peace; {gaps.busy_p50_ms:.2f}, "
            f"{gaps.busy_p99_ms:.2f} and {gaps.busy_max_ms:.2f} (p50, p99, longest) while long prompts arrive, the p99 "
            f"{gaps.busy_p99_ms / gaps.quiet_p50_ms:.2f} times the quiet p50; their first tokens after "
            f"{gaps.ttft_p50_ms:.0f} (p50) and {gaps.ttft_max_ms:.0f} (longest)."
        )
    return lines


def profile_table(profile: Profile) -> str:
    """Every kernel of a step: its cost, its share, and the rate of what it reads."""
    total = sum(_cost(line) for line in profile.lines)
    header = ["kernel", "part", "times", "µs each", "µs a step", "of the step", "GB/s", "of ceiling"]
    rows = [
        [
            line.name[:_LONGEST_NAME], line.part, str(line.times), f"{line.microseconds:.2f}", f"{_cost(line):.1f}",
            f"{_cost(line) / total:.1%}", *_read(line.gb_s, profile.copy_gb_s),
        ]
        for line in profile.lines
    ]  # fmt: skip
    return _markdown(header, [*rows, ["all", "", "", "", f"{total:.1f}", "100%", "", ""]])


def _cost(line: Line) -> float:
    """Microseconds of a step."""
    return line.times * line.microseconds


def _read(gb_s: float | None, ceiling: float) -> list[str]:
    return ["", ""] if gb_s is None else [_number(gb_s), f"{gb_s / ceiling:.0%}"]


def _phase_rows(ours: Measurement, peers: Sequence[PeerResult]) -> Iterator[list[str]]:
    known = {phase.phase: phase for phase in ours.phases}
    for phase in ours.phases:
        unit, figure = _figure(phase)
        theirs = [_same(phase, peer.phases) for peer in peers]
        cells = [_NOTHING if one is None else _number(_figure(one)[1]) for one in theirs]
        ratio = _ratio(phase.seconds, [None if one is None else one.seconds for one in theirs])
        floor = _number(_figure(_timing(phase, phase.floor))[1])
        yield [phase.phase, _load(phase), unit, _number(figure), *cells, ratio, *_rate(phase), floor]
        step = _decode_step(phase, known)
        if step is not None:
            steps = [None if one is None else _decode_step(one, peer.phases) for one, peer in zip(theirs, peers, strict=True)]
            yield [f"{phase.phase}, prefill taken off", _load(phase), *_plain("ms/token", step, steps)]


def _other_rows(ours: Measurement, peers: Sequence[PeerResult]) -> Iterator[list[str]]:
    if ours.itl is not None:
        for name, what in (("quiet_p50_ms", "gap, quiet, p50"), ("busy_p99_ms", "gap, prompts arriving, p99")):
            yield [what, "", *_plain("ms", getattr(ours.itl, name), [_gap(peer.itl, name) for peer in peers])]
    yield ["start to first token", "", *_plain("s", ours.start.seconds, [peer.start for peer in peers])]


def _plain(unit: str, own: float, theirs: Sequence[float | None]) -> list[str]:
    """The rest of a row after the load: a figure of which less is better and that has no floor."""
    cells = [_NOTHING if one is None else _number(one) for one in theirs]
    return [unit, _number(own), *cells, _ratio(own, theirs), "", "", ""]


def _gap(gaps: ItlResult | None, name: str) -> float | None:
    return None if gaps is None else float(getattr(gaps, name))


def _figure(phase: Timing) -> tuple[str, float]:
    """What a phase is about, and its unit."""
    if phase.osl == 1:
        return "input tok/s", phase.input_rate
    return ("ms/token", phase.ms_per_step) if phase.n <= _FEW else ("output tok/s", phase.output_rate)


def _decode_step(phase: Timing, known: Mapping[str, Timing]) -> float | None:
    """Milliseconds of a step without the prefill, if the same prompts were also measured with one token out."""
    for other in known.values():
        if phase.osl > 1 == other.osl and (other.n, other.isl) == (phase.n, phase.isl):
            return (phase.seconds - other.seconds) / (phase.osl - 1) * 1e3
    return None


def _same(phase: Timing, known: Mapping[str, Timing]) -> Timing | None:
    """The phase of that name, if it was the same load."""
    other = known.get(phase.phase)
    return other if other and (other.n, other.isl, other.osl) == (phase.n, phase.isl, phase.osl) else None


def _timing(phase: Timing, seconds: float) -> Timing:
    return Timing(phase=phase.phase, n=phase.n, isl=phase.isl, osl=phase.osl, seconds=seconds)


def _ratio(own: float, theirs: Sequence[float | None]) -> str:
    found = [one for one in theirs if one is not None]
    return f"{min(found) / own:.2f} ×" if found else _NOTHING


def _load(phase: Timing) -> str:
    return f"{phase.isl}/{phase.osl} × {phase.n}"


def _rate(phase: PhaseResult) -> list[str]:
    """Of the decoding part if there is one, else of all: bytes or operations, whichever is nearer to its ceiling."""
    rates: Rates = phase.decode or phase.whole
    if rates.of_copy >= rates.of_matmul:
        return [f"{_number(rates.gb_s)} GB/s", f"{rates.of_copy:.0%}"]
    return [f"{_number(rates.tflop_s)} TFLOP/s", f"{rates.of_matmul:.0%}"]


def _decode_ms(phase: PhaseResult) -> str:
    return _NOTHING if phase.decode is None else _number(phase.decode.seconds / phase.decode.steps * 1e3)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _markdown(header: list[str], rows: Sequence[list[str]]) -> str:
    """Cells padded to their columns' widths, so that it is a table in a terminal, too."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
