"""The two files of a batch: requests in, answers out, one a line. Whatever ends a run, the next one goes on where it stopped."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from octavo.errors import InvalidRequest
from octavo.protocol.openai.batch import check_beginning, custom_id_of, read_key


class Line(NamedTuple):
    """A request's line; ``number`` counts from 1."""

    number: int
    content: bytes


class BatchFiles:
    """Both files, open. A line is written whole or cut off by the next run, so none is lost or answered twice.

    ``total``: how many requests there are. ``refused``: how many lines had an answer at the start that is an error.
    """

    def __init__(self, requests: Path, answers: Path) -> None:
        """Open them, and see what has been answered. Raises ``InvalidRequest``."""
        self._requests = _opened(requests, "rb")
        self._answers = _opened(answers, "a+b")
        if os.path.samestat(os.fstat(self._requests.fileno()), os.fstat(self._answers.fileno())):
            raise InvalidRequest("The answers must go into another file than the one with the requests.")
        try:
            fcntl.flock(self._answers, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InvalidRequest(f"Another run writes its answers to '{answers.name}'.") from None
        self.refused = 0
        self._answered, whole = self._read_answers(answers.name)
        self.total = self._check(answers.name)
        # What the last run could not finish writing; only now is it certain that the file is ours.
        self._answers.truncate(whole)

    @property
    def answered(self) -> int:
        """How many lines had an answer at the start."""
        return len(self._answered)

    def open_lines(self) -> Iterator[Line]:
        """The requests without an answer, in order."""
        return (line for line in self._lines() if line.number not in self._answered)

    def write(self, answer: bytes) -> None:
        """Add one line."""
        self._answers.write(answer)
        self._answers.flush()

    def close(self) -> None:
        """Close both."""
        self._requests.close()
        self._answers.close()

    def _lines(self) -> Iterator[Line]:
        self._requests.seek(0)
        for number, content in enumerate(self._requests, start=1):
            if content.strip():
                yield Line(number, content)

    def _read_answers(self, name: str) -> tuple[dict[int, str | None], int]:
        """Names of the lines that have an answer, by number, and how many bytes hold whole answers."""
        answered: dict[int, str | None] = {}
        self._answers.seek(0)
        whole = 0
        for content in self._answers:
            try:
                if content.endswith(b"\n"):
                    key = read_key(content)
                    answered[key.number] = key.custom_id
                    self.refused += not key.ok
                    whole += len(content)
                else:
                    check_beginning(content)
            except ValueError:
                raise InvalidRequest(f"'{name}' holds something else than answers to a batch; name another file.") from None
        return answered, whole

    def _check(self, name: str) -> int:
        """The number of requests; raises if the answers are to others."""
        total, unknown = 0, dict(self._answered)
        for line in self._lines():
            total += 1
            if line.number in unknown and unknown.pop(line.number) != custom_id_of(line.content):
                unknown[line.number] = None
                break
        if unknown:
            raise InvalidRequest(f"'{name}' holds answers to other requests than these; name another file.")
        return total


def _opened(path: Path, mode: str) -> BinaryIO:
    try:
        return path.open(mode)  # type: ignore[return-value]
    except OSError as error:
        raise InvalidRequest(f"'{path.name}' cannot be opened: {error.strerror}.") from None
