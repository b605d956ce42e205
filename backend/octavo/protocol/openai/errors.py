"""Errors as the OpenAI API words them: a body with a message, a type, the field in question and a code. Knows no status code."""

import msgspec

from octavo.errors import ErrorKind, InvalidRequest, OctavoError
from octavo.text.admission import BadPrompt, PromptTooLong

INVALID, SERVER = "invalid_request_error", "server_error"
_TYPES = {
    ErrorKind.OVERLOADED: "rate_limit_error",
    ErrorKind.QUEUE_TIMEOUT: SERVER,
    ErrorKind.ENGINE_DEAD: SERVER,
    ErrorKind.DRAINING: SERVER,
    ErrorKind.INTERNAL: SERVER,
}
_CODES = {
    ErrorKind.NOT_FOUND: "model_not_found",
    ErrorKind.UNSUPPORTED: "unsupported_value",
    ErrorKind.OVERLOADED: "rate_limit_exceeded",
    ErrorKind.CANCELLED: "request_cancelled",
    ErrorKind.UNAUTHENTICATED: "invalid_api_key",
    ErrorKind.FORBIDDEN: "insufficient_permissions",
    ErrorKind.RESTRICTED: "insufficient_permissions",
    ErrorKind.TOO_LARGE: "request_too_large",
}
# Texts that are Triton's, and name a protocol that the client does not speak.
_TEXTS = {
    ErrorKind.OVERLOADED: "The model's queue is full; try again later.",
    ErrorKind.DRAINING: "The server is shutting down and takes no new requests.",
}


class FieldError(InvalidRequest):
    """A mistake in one field of a body; ``code`` is OpenAI's name for mistakes of its kind."""

    def __init__(self, text: str, param: str | None, code: str | None = None) -> None:
        """``text`` is for the client to read."""
        super().__init__(text)
        self.param, self.code = param, code


def about_prompt(error: BadPrompt, field: str) -> FieldError:
    """``error`` with the field that holds the prompt."""
    return FieldError(str(error), field, "context_length_exceeded" if isinstance(error, PromptTooLong) else "invalid_value")


class ErrorDetail(msgspec.Struct):
    """What there is to say of an error."""

    message: str
    type: str
    param: str | None
    code: str | None


class _Body(msgspec.Struct):
    error: ErrorDetail


def error_detail(error: OctavoError) -> ErrorDetail:
    """``error`` in the words of the dialect."""
    param: str | None = None
    code = _CODES.get(error.kind)
    if isinstance(error, FieldError):
        param, code = error.param, error.code
    elif error.kind is ErrorKind.NOT_FOUND:
        param = "model"
    return ErrorDetail(_TEXTS.get(error.kind, str(error)), _TYPES.get(error.kind, INVALID), param, code)


def error_body(error: OctavoError) -> bytes:
    """The JSON that tells of ``error``."""
    return msgspec.json.encode(_Body(error_detail(error)))


def no_such_route(message: str, code: str = "unknown_url") -> bytes:
    """The JSON that tells of a path that does not exist, or a method."""
    return msgspec.json.encode(_Body(ErrorDetail(message, INVALID, None, code)))
