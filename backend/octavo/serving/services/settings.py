"""TraceSetting and LogSettings: read by whoever may call them, changed only where not everybody may."""

from functools import partial

from octavo.errors import Forbidden, InvalidRequest, shown
from octavo.protocol.settings import log_settings_response, read_log_changes, read_trace_changes, trace_setting_response
from octavo.serving.auth import Gate
from octavo.serving.control import ChangeLogs, ChangeTraces
from octavo.serving.groups import Group
from octavo.serving.link import Link
from octavo.serving.models import Models
from octavo.wire import pb


class SettingsService:
    """The settings of the whole server, over one transport."""

    def __init__(self, models: Models, link: Link, gate: Gate) -> None:
        """Read what ``models`` was told, change over ``link``; ``gate`` is the transport's."""
        self._models, self._link, self._gate = models, link, gate

    async def TraceSetting(self, request: pb.TraceSettingRequest) -> pb.TraceSettingResponse:
        """Change what ``request`` sets, if anything, and tell all that holds for its model, or for every model."""
        model = self._models.canonical(request.model_name)
        if model and not self._models.is_ready(model, ""):
            raise InvalidRequest(f"Request for unknown model : {shown(model)}")
        changes = read_trace_changes(request)
        if request.settings:
            self._check(Group.TRACE)
            await self._link.call(partial(ChangeTraces, model=model, changes=changes))
        settings = self._models.settings
        return trace_setting_response(settings.traced(model), settings.trace_mode)

    async def LogSettings(self, request: pb.LogSettingsRequest) -> pb.LogSettingsResponse:
        """Change what ``request`` sets, if anything, and tell all."""
        changes = read_log_changes(request)
        if request.settings:
            self._check(Group.LOGGING)
            await self._link.call(partial(ChangeLogs, changes=changes))
        return log_settings_response(self._models.settings.log)

    def _check(self, group: Group) -> None:
        if not self._gate.protects(group):
            raise Forbidden(
                f"Settings can be changed only on a server whose calls of the group '{group}' need credentials; "
                "its flag --auth-token-file asks for them."
            )
