"""Log and trace settings: Triton's messages to what they change, and back, with Triton's texts. Knows no owner of them."""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from octavo.errors import InvalidRequest, Unsupported, shown
from octavo.logs import LogFormat, LogSettings
from octavo.wire import pb

_LARGEST = 2**31 - 1
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_FLAGS = ("log_info", "log_warning", "log_error")
# What each numeric trace setting must at least be, and the largest value that Triton's text for one out of range names.
_NUMBERS = {"trace_rate": (0, 2**32 - 1), "trace_count": (-1, _LARGEST), "log_frequency": (0, 2**32 - 1)}
Changes = dict[str, Any]


class TraceMode(StrEnum):
    """What becomes of a trace: nothing, as no file is ever written here, or it is sent to an OpenTelemetry collector."""

    TRITON = "triton"
    OPENTELEMETRY = "opentelemetry"


class TraceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests are traced: every ``trace_rate``-th (0: none but those whose client traces), ``trace_count`` more (-1: all).

    ``trace_level``: whether any are. None leaves a choice to the settings behind these.
    """

    trace_level: bool | None = None
    trace_rate: int | None = None
    trace_count: int | None = None
    log_frequency: int | None = None

    def over(self, behind: "TraceSettings") -> "TraceSettings":
        """These settings, and those ``behind`` where these say nothing."""
        return TraceSettings(**{**_said(behind), **_said(self)})

    def changed(self, changes: Changes) -> "TraceSettings":
        """These settings with ``changes``, of which None takes back what was said."""
        return msgspec.structs.replace(self, **changes)


TRACE_DEFAULTS = TraceSettings(trace_level=False, trace_rate=1000, trace_count=-1, log_frequency=0)


def read_log_changes(request: pb.LogSettingsRequest) -> Changes:
    """The fields of ``LogSettings`` that ``request`` changes; as with Triton, an unknown name changes nothing."""
    given = request.settings
    if "log_file" in given:
        raise Unsupported("log file location can not be updated through network protocol")
    changes: Changes = {}
    for name in _FLAGS:
        if name in given:
            changes[name.removeprefix("log_")] = _typed(name, given[name], "bool_param", "boolean")
    if "log_verbose_level" in given:
        changes["verbose_level"] = _typed("log_verbose_level", given["log_verbose_level"], "uint32_param", "int32")
    if "log_format" in given:
        text = _typed("log_format", given["log_format"], "string_param", "string")
        if text not in list(LogFormat):
            raise InvalidRequest(f"invalid argument for log_format, got: {shown(text)}")
        changes["format"] = text
    return changes


def log_settings_response(settings: LogSettings) -> pb.LogSettingsResponse:
    """All log settings as they are."""
    value = pb.LogSettingsResponse.SettingValue
    return pb.LogSettingsResponse(
        settings={
            "log_file": value(string_param=""),
            "log_info": value(bool_param=settings.info),
            "log_warning": value(bool_param=settings.warning),
            "log_error": value(bool_param=settings.error),
            "log_verbose_level": value(uint32_param=settings.verbose_level),
            "log_format": value(string_param=settings.format),
        }
    )


def read_trace_changes(request: pb.TraceSettingRequest) -> Changes:
    """The fields of ``TraceSettings`` that ``request`` changes, None for one to be taken back; unknown names change nothing."""
    given: Mapping[str, list[str]] = {name: list(setting.value) for name, setting in request.settings.items()}
    if "trace_file" in given:
        raise Unsupported("trace file location can not be updated through network protocol")
    changes: Changes = {}
    if "trace_level" in given:
        changes |= _levels(given["trace_level"])
    for name in _NUMBERS:
        if name in given:
            changes[name] = _number(name, given[name])
    return changes


def trace_setting_response(settings: TraceSettings, mode: TraceMode) -> pb.TraceSettingResponse:
    """All trace settings as they are; ``settings`` leaves no choice open."""
    value = pb.TraceSettingResponse.SettingValue
    texts = {"trace_level": "TIMESTAMPS" if settings.trace_level else "OFF", "trace_mode": str(mode)}
    texts |= {"trace_rate": str(settings.trace_rate), "trace_count": str(settings.trace_count)}
    if mode is TraceMode.TRITON:
        texts |= {"log_frequency": str(settings.log_frequency), "trace_file": ""}
    return pb.TraceSettingResponse(settings={name: value(value=[text]) for name, text in texts.items()})


def check_trace_settings(settings: TraceSettings, mode: TraceMode) -> None:
    """Refuse settings by which something is to be traced that cannot be; ``settings`` leaves no choice open."""
    if settings.trace_level and mode is TraceMode.TRITON:
        reason = "trace file name is not given" if settings.trace_rate else "sample rate must be non-zero"
        raise InvalidRequest(f"Attempting to set invalid trace setting :{reason}")


def _typed(name: str, value: pb.LogSettingsRequest.SettingValue, kind: str, called: str) -> Any:
    if value.WhichOneof("parameter_choice") != kind:
        raise InvalidRequest(f"expect {called} for '{name}'")
    return getattr(value, kind)


def _levels(names: Iterable[str]) -> Changes:
    levels = list(names)
    if "OFF" in levels and len(levels) > 1:
        raise InvalidRequest("Expect only one trace level 'OFF' is specified")
    if "TENSORS" in levels:
        raise Unsupported("This server does not trace tensors, only timestamps: the levels are OFF and TIMESTAMPS.")
    if not levels:
        return {"trace_level": None}
    return {"trace_level": "TIMESTAMPS" in levels} if {"OFF", "TIMESTAMPS"} & set(levels) else {}


def _number(name: str, values: list[str]) -> int | None:
    if not values:
        return None
    if len(values) > 1:
        raise InvalidRequest(f"expect only 1 value for '{name}'")
    least, most = _NUMBERS[name]
    if not _INTEGER.fullmatch(values[0]):
        raise InvalidRequest(f"Unable to parse '{name}', got: {shown(values[0])}")
    if least < 0 and int(values[0]) < least:
        raise InvalidRequest(f"Unable to parse '{name}'. Expecting value >= {least}, got: {values[0]}")
    if not least <= int(values[0]) <= _LARGEST:
        raise InvalidRequest(f"Unable to parse '{name}', value is out of range [ {least}, {most} ], got: {values[0]}")
    return int(values[0])


def _said(settings: TraceSettings) -> Changes:
    return {name: value for name, value in msgspec.structs.asdict(settings).items() if value is not None}
