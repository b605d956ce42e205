"""Every way a request or a load can fail, one exception type per kind; no transport knows more than the kind and the text.

A text is a whole sentence that says what was wrong and what would be right. It holds no path, no address, no repr of an
internal and nothing of another request. Transports map ``kind`` to their own codes in one table each.
"""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import msgspec

from octavo.logs import of_request

MAX_SHOWN = 128


class ErrorKind(IntEnum):
    """What went wrong, independent of any transport."""

    INVALID_REQUEST = 1
    NOT_FOUND = 2
    UNSUPPORTED = 3
    OVERLOADED = 4
    QUEUE_TIMEOUT = 5
    CANCELLED = 6
    UNAUTHENTICATED = 7
    FORBIDDEN = 8
    ENGINE_DEAD = 9
    DRAINING = 10
    LOAD_FAILED = 11
    INTERNAL = 12
    DISABLED = 13
    TOO_LARGE = 14
    RESTRICTED = 15


class OctavoError(Exception):
    """Base of all errors that may reach a client; ``str(error)`` is the text the client reads."""

    kind: ErrorKind = ErrorKind.INTERNAL


class InvalidRequest(OctavoError, ValueError):
    """The request can never be right as it stands. A ``ValueError`` too, for those who call us from Python."""

    kind = ErrorKind.INVALID_REQUEST


class NotFound(OctavoError):
    """The model, version or resource does not exist or has no available version."""

    kind = ErrorKind.NOT_FOUND


class Unsupported(OctavoError):
    """A known operation that this server does not implement."""

    kind = ErrorKind.UNSUPPORTED


class Overloaded(OctavoError):
    """The queue is full; the same request may succeed later."""

    kind = ErrorKind.OVERLOADED


class QueueTimeout(OctavoError):
    """The request waited in the queue for longer than it allowed."""

    kind = ErrorKind.QUEUE_TIMEOUT


class Cancelled(OctavoError):
    """The client, a deadline or an unload ended the request."""

    kind = ErrorKind.CANCELLED


class Unauthenticated(OctavoError):
    """Credentials are missing or wrong."""

    kind = ErrorKind.UNAUTHENTICATED


class Forbidden(OctavoError):
    """The credentials are right and do not allow this."""

    kind = ErrorKind.FORBIDDEN


class EngineDead(OctavoError):
    """The engine that held the request has died; the text names the first cause."""

    kind = ErrorKind.ENGINE_DEAD


class Draining(OctavoError):
    """The server or the model is on its way out and takes no new requests."""

    kind = ErrorKind.DRAINING


class LoadFailed(OctavoError):
    """A model could not be loaded; the text says what in its folder or weights is wrong.

    Every argument is a sentence about one thing, see ``problems``.
    """

    kind = ErrorKind.LOAD_FAILED

    @property
    def problems(self) -> list[str]:
        """All that is known to be wrong."""
        return [str(problem) for problem in self.args]

    def __str__(self) -> str:
        """All of it as one text."""
        return " ".join(self.problems)


class Problems:
    """Collects what is wrong with a model, so that all of it can be told at once."""

    def __init__(self) -> None:
        """Nothing is."""
        self._found: list[LoadFailed] = []

    @contextmanager
    def catch(self) -> Iterator[None]:
        """Go on after a ``LoadFailed`` inside, and remember it."""
        try:
            yield
        except LoadFailed as error:
            self._found.append(error)

    def add(self, *problems: str) -> None:
        """Remember these sentences."""
        self._found += [LoadFailed(problem) for problem in problems]

    @property
    def told(self) -> list[str]:
        """A sentence for each."""
        return [problem for error in self._found for problem in error.problems]

    def check(self) -> None:
        """Raise ``LoadFailed`` with everything that was found, if anything was."""
        if len(self._found) == 1:
            raise self._found[0]
        if self._found:
            raise LoadFailed(*self.told) from self._found[0]


class Disabled(OctavoError):
    """A working operation that this server was started without."""

    kind = ErrorKind.DISABLED


class TooLarge(OctavoError):
    """What the client sends is over the limit for one message."""

    kind = ErrorKind.TOO_LARGE


class Restricted(OctavoError):
    """The caller did not send the header that the operator asks for; Triton's answer to that differs from a missing token's."""

    kind = ErrorKind.RESTRICTED


class Internal(OctavoError):
    """A bug of ours; the text carries an id that the log has too."""

    kind = ErrorKind.INTERNAL


class ErrorFrame(msgspec.Struct, frozen=True, array_like=True):
    """An ``OctavoError`` on a socket between our processes."""

    kind: ErrorKind
    text: str

    @staticmethod
    def of(error: OctavoError) -> "ErrorFrame":
        """The frame that carries ``error``; what cannot be encoded stands in its text as an escape."""
        return ErrorFrame(error.kind, str(error).encode(errors="backslashreplace").decode())

    def exception(self) -> OctavoError:
        """The exception that this frame carries."""
        return _TYPES[self.kind](self.text)


def internal(error: BaseException, log: logging.Logger, request_id: str = "") -> Internal:
    """The error to send in place of ``error``, a bug of ours, which is logged with its trace under the same id.

    ``request_id``: what the client calls the request that it ends.
    """
    mark = secrets.token_hex(4)
    log.error("Internal error %s", mark, exc_info=error, extra=of_request(request_id))
    return Internal(f"An internal error has ended this request; the server's log has the details under the id {mark}.")


def shown(name: str) -> str:
    """A client's own string as it may stand in a text, cut so that no text grows with a request."""
    return name if len(name) <= MAX_SHOWN else name[:MAX_SHOWN] + "..."


_TYPES: dict[ErrorKind, type[OctavoError]] = {cls.kind: cls for cls in OctavoError.__subclasses__()}
