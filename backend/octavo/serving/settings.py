"""``Settings``: what can be set while the server runs, one immutable value that the supervisor owns and every process acts by."""

import msgspec

from octavo.logs import LogSettings
from octavo.protocol.settings import TRACE_DEFAULTS, Changes, TraceMode, TraceSettings, check_trace_settings

EVERY_MODEL = ""


class TraceExport(msgspec.Struct, frozen=True, kw_only=True):
    """Where spans go: the OTLP/HTTP ``url`` of a collector, None for what OpenTelemetry's own environment variables say.

    ``resource``: attributes of all of them. ``batch``: sizes, and the delay in milliseconds, of the batches in which they go.
    """

    url: str | None = None
    resource: dict[str, str] = {}
    batch: dict[str, int] = {}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How to log and what to trace.

    ``traces``: where traces go, None for nowhere. ``trace``: which are made unless something else was said, complete.
    ``trace_of``: what was said, by model, and for all of them under ``EVERY_MODEL``.
    """

    log: LogSettings = LogSettings()
    traces: TraceExport | None = None
    trace: TraceSettings = TRACE_DEFAULTS
    trace_of: dict[str, TraceSettings] = {}

    @property
    def trace_mode(self) -> TraceMode:
        """What Triton calls the way that traces go."""
        return TraceMode.TRITON if self.traces is None else TraceMode.OPENTELEMETRY

    def traced(self, model: str) -> TraceSettings:
        """What holds for ``model``, complete."""
        said = self.trace_of
        everywhere = said.get(EVERY_MODEL, TraceSettings()).over(self.trace)
        return everywhere if model == EVERY_MODEL else said.get(model, TraceSettings()).over(everywhere)

    def with_log(self, changes: Changes) -> "Settings":
        """The same with ``changes`` of how to log."""
        return msgspec.structs.replace(self, log=msgspec.convert(msgspec.to_builtins(self.log) | changes, LogSettings))

    def with_trace(self, model: str, changes: Changes) -> "Settings":
        """The same with ``changes`` for ``model``. Raises ``InvalidRequest`` with Triton's texts."""
        said = {**self.trace_of, model: self.trace_of.get(model, TraceSettings()).changed(changes)}
        said = {name: settings for name, settings in said.items() if settings != TraceSettings()}
        changed = msgspec.structs.replace(self, trace_of=said)
        for name in (EVERY_MODEL, *said):
            check_trace_settings(changed.traced(name), self.trace_mode)
        return changed

    def with_one_trace_less(self, model: str) -> "Settings":
        """The same after a trace of ``model``, where only so many are wanted."""
        left = self.traced(model).trace_count
        if left is None or left <= 0:
            return self
        where = model if self.trace_of.get(model, TraceSettings()).trace_count is not None else EVERY_MODEL
        return self.with_trace(where, {"trace_count": left - 1})
