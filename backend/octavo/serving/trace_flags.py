"""``--trace-config``, as tritonserver has it: what is traced from the start, and where the traces go. Knows no OpenTelemetry."""

from collections.abc import Iterable
from importlib.util import find_spec

from octavo.errors import OctavoError
from octavo.protocol.settings import TRACE_DEFAULTS, TraceMode, TraceSettings, read_trace_changes
from octavo.serving.options import BadFlag
from octavo.serving.settings import TraceExport
from octavo.wire import pb

_SETTINGS = {"rate": "trace_rate", "count": "trace_count", "level": "trace_level"}
_BATCH = ("bsp_max_queue_size", "bsp_schedule_delay", "bsp_max_export_batch_size")


def read_trace_flags(flags: Iterable[str]) -> tuple[TraceSettings, TraceExport | None]:
    """What is traced, complete, and in OpenTelemetry's mode where traces go. Raises ``BadFlag``."""
    said: dict[str, list[str]] = {}
    export: dict[str, list[str]] = {}
    for flag in flags:
        where, comma, pair = flag.partition(",")
        name, equals, value = (pair if comma else flag).partition("=")
        if not equals or not value or (comma and "=" in where):
            raise BadFlag("--trace-config option format is '<setting>=<value>' or '<mode>,<setting>=<value>'.")
        if comma and where != TraceMode.OPENTELEMETRY:
            raise BadFlag(f"--trace-config has settings of the mode 'opentelemetry', not of '{where}': no trace file is written.")
        (export if comma else said).setdefault(name, []).append(value)
    mode = _mode(said.pop("mode", ["triton"]))
    return _settings(said, mode), _export(export) if mode is TraceMode.OPENTELEMETRY else None


def _mode(values: list[str]) -> TraceMode:
    try:
        mode = TraceMode(values[-1])
    except ValueError:
        raise BadFlag(f"--trace-config mode must be 'triton' or 'opentelemetry', not '{values[-1]}'.") from None
    if mode is TraceMode.OPENTELEMETRY and find_spec("opentelemetry.exporter") is None:
        raise BadFlag("--trace-config mode=opentelemetry needs OpenTelemetry's SDK: pip install 'octavo[otel]'.")
    return mode


def _settings(said: dict[str, list[str]], mode: TraceMode) -> TraceSettings:
    unknown = [name for name in said if name not in _SETTINGS]
    if unknown:
        raise BadFlag(f"--trace-config has no setting '{unknown[0]}'; there are mode, {', '.join(_SETTINGS)}.")
    values = {_SETTINGS[name]: pb.TraceSettingRequest.SettingValue(value=given) for name, given in said.items()}
    # A mode in which traces go somewhere is asked for in order to trace.
    behind = TRACE_DEFAULTS.changed({"trace_level": mode is TraceMode.OPENTELEMETRY})
    try:
        settings = TraceSettings().changed(read_trace_changes(pb.TraceSettingRequest(settings=values))).over(behind)
    except OctavoError as error:
        raise BadFlag(f"--trace-config: {error}") from None
    if settings.trace_level and mode is not TraceMode.OPENTELEMETRY:
        raise BadFlag("--trace-config level=TIMESTAMPS needs mode=opentelemetry: no trace file is written.")
    return settings


def _export(given: dict[str, list[str]]) -> TraceExport:
    urls, resource = given.pop("url", [None]), given.pop("resource", [])
    pairs = [text.partition("=") for text in resource]
    if not all(equals and value for _, equals, value in pairs):
        raise BadFlag("--trace-config opentelemetry,resource must be '<key>=<value>'.")
    unknown = [name for name in given if name not in _BATCH]
    if unknown:
        raise BadFlag(f"--trace-config opentelemetry has no setting '{unknown[0]}'; there are url, resource, {', '.join(_BATCH)}.")
    wrong = [name for name, values in given.items() if not values[-1].isdecimal() or len(values[-1]) > 9 or not int(values[-1])]
    if wrong:
        raise BadFlag(f"--trace-config opentelemetry,{wrong[0]} must be a whole number greater than 0.")
    batch = {name: int(values[-1]) for name, values in given.items()}
    return TraceExport(url=urls[-1], resource={key: value for key, _, value in pairs}, batch=batch)
