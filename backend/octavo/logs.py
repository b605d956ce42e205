"""How a process of ours logs: one line per event on standard error, with time, level and process. Never a prompt."""

import logging
import time
from enum import StrEnum

import msgspec


class LogFormat(StrEnum):
    """How a line of the log says when it was written: in local time, or in UTC as ISO 8601."""

    DEFAULT = "default"
    ISO8601 = "ISO8601"


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines are written, and how. From a ``verbose_level`` of 1 on, our own code also tells of every request."""

    info: bool = True
    warning: bool = True
    error: bool = True
    verbose_level: int = 0
    format: LogFormat = LogFormat.DEFAULT

    def wants(self, level: int) -> bool:
        """Whether lines of ``level``, one of ``logging``'s, are written."""
        if level >= logging.ERROR:
            return self.error
        if level >= logging.WARNING:
            return self.warning
        return self.info if level >= logging.INFO else self.verbose_level > 0


def configure_logs(process: str, settings: LogSettings) -> None:
    """Log by ``settings`` under the name of the process; of other people's code warnings at the least."""
    logging.basicConfig(handlers=[_Lines(process)], level=logging.WARNING, force=True)
    change_logs(settings)


def change_logs(settings: LogSettings) -> None:
    """From now on, log by ``settings``."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Lines):
            handler.apply(settings)
    logging.getLogger("octavo").setLevel(logging.DEBUG if settings.verbose_level else logging.INFO)


class _Lines(logging.StreamHandler):
    """Standard error, in a format and for levels that may change."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process.replace("%", "%%")
        self._settings = LogSettings()

    def apply(self, settings: LogSettings) -> None:
        self._settings = settings
        formatter = logging.Formatter(f"%(asctime)s %(levelname)s {self._process}: %(message)s")
        if settings.format is LogFormat.ISO8601:
            formatter.converter = time.gmtime
            formatter.default_time_format, formatter.default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"
        self.setFormatter(formatter)

    def filter(self, record: logging.LogRecord) -> bool:
        return self._settings.wants(record.levelno) and bool(super().filter(record))
