"""How a process of ours logs: one line per event on standard error, with time, level and process. Never a prompt."""

import logging
import sys
import time
from enum import StrEnum
from types import TracebackType

import msgspec

log = logging.getLogger(__name__)

MAX_REQUEST_ID = 128


class LogFormat(StrEnum):
    """How a line of the log is written: as text with the local time, or with UTC as ISO 8601, or as one JSON object with that."""

    DEFAULT = "default"
    ISO8601 = "ISO8601"
    JSON = "json"


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
    """Log by ``settings`` under the name of the process; of other people's code warnings at the least.

    What Python itself would write on standard error, warnings and the error that ends a process, is logged too.
    """
    logging.basicConfig(handlers=[_Lines(process)], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    sys.excepthook = _log_the_end
    change_logs(settings)


def change_logs(settings: LogSettings) -> None:
    """From now on, log by ``settings``."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Lines):
            handler.apply(settings)
    logging.getLogger("octavo").setLevel(logging.DEBUG if settings.verbose_level else logging.INFO)


def of_request(request_id: str) -> dict[str, str]:
    """What a line about one request gets as its ``extra``. A client's own id, which may be of any length."""
    return {"request_id": request_id[:MAX_REQUEST_ID]}


def _log_the_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        log.critical("The process ends after an error that nobody has expected.", exc_info=(kind, error, trace))


class _Lines(logging.StreamHandler):
    """Standard error, in a format and for levels that may change."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process
        self._settings = LogSettings()

    def apply(self, settings: LogSettings) -> None:
        self._settings = settings
        self.setFormatter(_Json(self._process) if settings.format is LogFormat.JSON else _text(self._process, settings.format))

    def filter(self, record: logging.LogRecord) -> bool:
        return self._settings.wants(record.levelno) and bool(super().filter(record))


class _OneLine(logging.Formatter):
    """A message of several lines, as Triton words a failed load, is one of the log; only a trace has lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return " ".join(line.strip() for line in super().formatMessage(record).splitlines())


def _text(process: str, format: LogFormat) -> logging.Formatter:
    formatter = _OneLine(f"%(asctime)s %(levelname)s {process.replace('%', '%%')}: %(message)s")
    return _in_utc(formatter) if format is LogFormat.ISO8601 else formatter


def _in_utc(formatter: logging.Formatter) -> logging.Formatter:
    formatter.converter = time.gmtime
    formatter.default_time_format, formatter.default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"
    return formatter


class _Line(msgspec.Struct, omit_defaults=True):
    """An event. ``logger``: the module that tells of it. ``request_id``: whose it is, where that is known."""

    time: str
    level: str
    process: str
    message: str
    logger: str
    request_id: str = ""
    exception: str = ""


class _Json(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process
        _in_utc(self)

    def format(self, record: logging.LogRecord) -> str:
        line = _Line(
            time=self.formatTime(record),
            level=record.levelname,
            process=self._process,
            message=_writable(record.getMessage()),
            logger=record.name,
            request_id=_writable(getattr(record, "request_id", "")),
            exception=_writable(self.formatException(record.exc_info)) if record.exc_info else "",
        )
        return msgspec.json.encode(line, enc_hook=repr).decode()


def _writable(text: str) -> str:
    """``text`` in UTF-8, as a file's name, for one, need not be."""
    return text.encode(errors="backslashreplace").decode()
