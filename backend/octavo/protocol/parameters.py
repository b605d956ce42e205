"""Request ``parameters`` and the ``sampling_parameters`` JSON: who is served when, and how tokens are drawn.

Triton's own keys are checked with its texts; every other key is a sampling option, which the JSON overrides.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from octavo.errors import InvalidRequest, shown
from octavo.protocol.rejection import RejectedRequest, check_count
from octavo.protocol.sampling_fields import MAX_JSON_BYTES
from octavo.wire import pb

MAX_PARAMETERS = 64
MAX_SALT_CHARACTERS = 256
# A request without a priority has Triton's level 0, "the default". Level 1 is served before it, 2 as it, 3 after it.
DEFAULT_PRIORITY_LEVEL = 2
EMPTY_FINAL = "triton_enable_empty_final_response"
_CUSTOM = {"int64_param", "bool_param", "string_param", "double_param"}
# What a key of Triton's own may hold; its error text lists them in this order.
_RESERVED: dict[str, tuple[str, ...]] = {
    "sequence_id": ("int64_param", "string_param"),
    "sequence_start": ("bool_param",),
    "sequence_end": ("bool_param",),
    "priority": ("int64_param", "uint64_param"),
    "timeout": ("int64_param",),
    EMPTY_FINAL: ("bool_param",),
}
_TRANSPORT = {"headers", "binary_data_output"}


class RequestParameters(NamedTuple):
    """``priority``: smaller is served first. ``queue_timeout``: seconds. ``options``: everything else, by name.

    ``empty_final``: whether the last message of a stream is due even if there is nothing to say.
    """

    priority: int
    queue_timeout: float | None
    cache_salt: str
    empty_final: bool
    options: dict[str, Any]


def read_parameters(parameters: Mapping[str, pb.InferParameter]) -> RequestParameters:
    """Sort a request's parameters. Raises ``RejectedRequest`` with Triton's texts."""
    check_count(len(parameters), MAX_PARAMETERS, "parameters")
    values = {name: _value(name, parameter) for name, parameter in parameters.items()}
    level, microseconds = values.get("priority", 0), values.get("timeout", 0)
    salt = values.pop("cache_salt", "")
    if not isinstance(salt, str) or len(salt) > MAX_SALT_CHARACTERS:
        raise InvalidRequest(f"cache_salt must be a string of at most {MAX_SALT_CHARACTERS} characters.")
    return RequestParameters(
        priority=_priority(level),
        queue_timeout=microseconds / 1e6 if microseconds > 0 else None,
        cache_salt=salt,
        empty_final=values.get(EMPTY_FINAL, False),
        options={name: value for name, value in values.items() if name not in _RESERVED and name not in _TRANSPORT},
    )


def read_sampling_json(data: bytes) -> dict[str, Any]:
    """The options of a ``sampling_parameters`` tensor. Raises ``InvalidRequest``."""
    if len(data) > MAX_JSON_BYTES:
        raise InvalidRequest(f"sampling_parameters must have at most {MAX_JSON_BYTES} bytes, got {len(data)}.")
    try:
        options = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InvalidRequest("sampling_parameters must be a JSON object, but it is not valid JSON.") from error
    if not isinstance(options, dict):
        raise InvalidRequest('sampling_parameters must be a JSON object, like {"temperature": 0}.')
    return options


def _value(name: str, parameter: pb.InferParameter) -> Any:
    kind = parameter.WhichOneof("parameter_choice")
    if name in _RESERVED:
        if kind not in _RESERVED[name]:
            expected = " or ".join(_RESERVED[name])
            raise RejectedRequest(f"invalid value type for '{name}' parameter, expected {expected}.")
    elif name.startswith("triton_"):
        raise RejectedRequest(
            "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys starting with "
            f"'triton_' are allowed: {EMPTY_FINAL}"
        )
    elif kind not in _CUSTOM and name not in _TRANSPORT:
        raise RejectedRequest(
            f"invalid value type for '{shown(name)}' parameter, expected int64_param, bool_param, or string_param."
        )
    return getattr(parameter, kind) if kind else None


def _priority(level: int) -> int:
    """The engine's priority of a Triton level; one out of range is the default or the last."""
    return min(level, 2**31) - DEFAULT_PRIORITY_LEVEL if level > 0 else 0
