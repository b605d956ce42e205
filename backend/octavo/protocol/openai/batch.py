"""Lines of OpenAI's batch files: a request a line, and its answer. Knows no file.

An answer's ``id`` holds the number of its request's line, so whoever reads the answers knows which lines have one.
"""

import re
from typing import Any

import msgspec

from octavo.errors import InvalidRequest

_ID = re.compile(r"batch_req_([0-9]+)")
_OK = 200
_START = b'{"id":"batch_req_'


class BatchCall(msgspec.Struct):
    """One request: what a client would send to ``url``. What else stands in the line means nothing."""

    custom_id: str
    url: str
    body: msgspec.Raw
    method: str = "POST"


class _Status(msgspec.Struct):
    status_code: int


class AnswerKey(msgspec.Struct):
    """What tells whose answer a line is, and of which kind."""

    id: str
    custom_id: str | None
    response: _Status | None = None

    @property
    def ok(self) -> bool:
        """Whether the request was served."""
        return self.response is not None and self.response.status_code == _OK

    @property
    def number(self) -> int:
        """The number of the request's line. Raises ``ValueError`` if it is none of our answers."""
        found = _ID.fullmatch(self.id)
        if found is None:
            raise ValueError(f"{self.id} is not the id of an answer")
        return int(found[1])


class _Response(msgspec.Struct):
    status_code: int
    request_id: str
    body: msgspec.Raw


class _Error(msgspec.Struct):
    code: str
    message: str


class _Answer(msgspec.Struct):
    id: str
    custom_id: str | None
    response: _Response | None
    error: _Error | None


_encode = msgspec.json.Encoder().encode
_call = msgspec.json.Decoder(BatchCall)
_key = msgspec.json.Decoder(AnswerKey)


def read_call(line: bytes) -> BatchCall:
    """The request that ``line`` is. Raises ``InvalidRequest``."""
    try:
        return _call.decode(line)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"A line must be a JSON object with custom_id, url and body: {error}.") from None
    except (ValueError, RecursionError):
        raise InvalidRequest("A line must be a JSON object, but this one is not valid JSON.") from None


def read_key(line: bytes) -> AnswerKey:
    """Whose and what answer ``line`` is. Raises ``ValueError`` if it is none of ours."""
    return _key.decode(line)


def check_beginning(line: bytes) -> None:
    """Raises ``ValueError`` unless ``line`` may be what was written of an answer."""
    if not (line.startswith(_START) or _START.startswith(line)):
        raise ValueError("this is not the beginning of an answer")


def custom_id_of(line: bytes) -> str | None:
    """What a request's line is called, None if it does not say."""
    try:
        return read_call(line).custom_id
    except InvalidRequest:
        return None


def answered(number: int, call: BatchCall, status: int, request_id: str, body: bytes) -> bytes:
    """The line that answers ``call``, on line ``number``, with what a server would have."""
    return _line(number, call.custom_id, _Response(status, request_id, msgspec.Raw(body)), None)


def unreadable(number: int, error: InvalidRequest) -> bytes:
    """The line that says why line ``number`` is no request."""
    return _line(number, None, None, _Error("invalid_request", str(error)))


def _line(number: int, custom_id: str | None, response: _Response | None, error: _Error | None) -> bytes:
    answer: Any = _Answer(f"batch_req_{number}", custom_id, response, error)
    return bytes(_encode(answer)) + b"\n"
