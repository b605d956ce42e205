"""Trace and log settings over HTTP: the messages of the gRPC service as the JSON objects that Triton has for them."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from octavo.errors import InvalidRequest, shown
from octavo.protocol.json_body import decode
from octavo.protocol.rejection import check_count
from octavo.serving.auth import Gate
from octavo.serving.http.body import read_body
from octavo.serving.link import Link
from octavo.serving.models import Models
from octavo.serving.services.settings import SettingsService
from octavo.wire import pb

MAX_SETTINGS = 64
_LARGEST = 2**32 - 1
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUE = msgspec.json.Decoder(bool | int | float | str | list[str] | None)
_MANY = {"trace_level"}


class SettingsEndpoints:
    """What can be set while the server runs."""

    def __init__(self, models: Models, link: Link, gate: Gate, limit: int) -> None:
        """Ask over ``link``; a body has at most ``limit`` bytes."""
        self._settings, self._limit = SettingsService(models, link, gate), limit

    async def trace(self, request: Request) -> Response:
        """What is traced."""
        return _trace_json(await self._settings.TraceSetting(pb.TraceSettingRequest(model_name=_model(request))))

    async def change_trace(self, request: Request) -> Response:
        """Change what is traced."""
        message = pb.TraceSettingRequest(model_name=_model(request))
        for name, value in (await self._members(request)).items():
            message.settings[name].value.extend(_texts(name, value))
        return _trace_json(await self._settings.TraceSetting(message))

    async def log(self, _: Request) -> Response:
        """How the server logs."""
        return _log_json(await self._settings.LogSettings(pb.LogSettingsRequest()))

    async def change_log(self, request: Request) -> Response:
        """Change how the server logs."""
        message = pb.LogSettingsRequest()
        for name, value in (await self._members(request)).items():
            message.settings[name].CopyFrom(_log_value(value))
        return _log_json(await self._settings.LogSettings(message))

    async def _members(self, request: Request) -> dict[str, Any]:
        members = decode(_OBJECT, await read_body(request, self._limit))
        check_count(len(members), MAX_SETTINGS, "settings")
        return {name: _value(name, value) for name, value in members.items()}


def _model(request: Request) -> str:
    return str(request.path_params.get("model", ""))


def _value(name: str, value: msgspec.Raw) -> Any:
    try:
        return _VALUE.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        raise InvalidRequest(f"The setting '{shown(name)}' must be a string, a number, a boolean or a list of strings.") from None


def _texts(name: str, value: Any) -> list[str]:
    """The values of a trace setting; null takes back what was set."""
    if value is None:
        return []
    if isinstance(value, list):
        return value
    if isinstance(value, bool | float):
        raise InvalidRequest(f"The trace setting '{shown(name)}' must be a string or a list of strings.")
    return [str(value)]


def _log_value(value: Any) -> pb.LogSettingsRequest.SettingValue:
    """A log setting; what none can be has no value, and is refused by its name."""
    kind = pb.LogSettingsRequest.SettingValue
    if isinstance(value, bool):
        return kind(bool_param=value)
    if isinstance(value, int) and 0 <= value <= _LARGEST:
        return kind(uint32_param=value)
    return kind(string_param=value) if isinstance(value, str) else kind()


def _trace_json(reply: pb.TraceSettingResponse) -> Response:
    settings = {name: list(setting.value) for name, setting in reply.settings.items()}
    return _json({name: values if name in _MANY else values[0] for name, values in settings.items()})


def _log_json(reply: pb.LogSettingsResponse) -> Response:
    return _json({name: getattr(value, str(value.WhichOneof("parameter_choice"))) for name, value in reply.settings.items()})


def _json(members: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(members), media_type="application/json")
