"""Sampling options by name, with values of any type, to ``SamplingParams``. Knows no message and no tensor.

Coerces as vllm_backend does (``"0"`` is 0.0) and refuses what it would let through: lists for numbers, booleans for
integers, NaN. An option that nobody knows is refused with the nearest known one, one that is not served yet by its name.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from octavo.errors import InvalidRequest, Unsupported
from octavo.sampling import MAX_LOGIT_BIASES, NOT_SERVED, SamplingParams, refuse_unless_neutral
from octavo.structured_outputs import StructuredOutputsParams

MAX_JSON_BYTES = 1 << 20
MAX_STOP_TOKEN_IDS = 1024
_LONGEST_NUMBER = 64
_LONGEST_NAME = 64
_OUT_OF_RANGE = 2**64


def sampling_params(options: Mapping[str, Any]) -> SamplingParams:
    """The parameters that ``options`` ask for; ``None`` means the default. Raises ``InvalidRequest`` or ``Unsupported``."""
    fields: dict[str, Any] = {}
    for name, value in options.items():
        now = _FORMER_NAMES.get(name, name)
        if value is None and (now in _READERS or name in UNSUPPORTED):
            continue
        if name in UNSUPPORTED:
            _refuse_unless_neutral(name, value)
        elif now in fields:
            raise InvalidRequest(f"{now} must be given once, under that name or as {name}.")
        elif now in _READERS:
            fields[now] = _READERS[now](name, value)
        else:
            raise _unknown(name)
    return SamplingParams(**fields)


def _integer(name: str, value: Any) -> int:
    if isinstance(value, int | float) and not -_OUT_OF_RANGE < value < _OUT_OF_RANGE:
        raise _mistyped(name, "an integer of at most 64 bits", value)
    if isinstance(value, str) and len(value) <= _LONGEST_NUMBER:
        try:
            return int(value)
        except ValueError:
            pass
    elif isinstance(value, int) and not isinstance(value, bool):
        return value
    elif isinstance(value, float) and value.is_integer():
        return int(value)
    raise _mistyped(name, "an integer", value)


def _number(name: str, value: Any) -> float:
    if isinstance(value, str) and len(value) <= _LONGEST_NUMBER:
        try:
            return float(value)
        except ValueError:
            pass
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            pass
    raise _mistyped(name, "a number", value)


def _boolean(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise _mistyped(name, "true or false", value)


def _strings(name: str, value: Any) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise _mistyped(name, "a string or a list of strings", value)
    return tuple(values)


def _token_ids(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise _mistyped(name, "a list of token ids", value)
    if len(value) > MAX_STOP_TOKEN_IDS:
        raise InvalidRequest(f"{name} must hold at most {MAX_STOP_TOKEN_IDS} token ids, got {len(value)}.")
    return tuple(_token_id(name, item) for item in value)


def _biases(name: str, value: Any) -> dict[int, float]:
    if not isinstance(value, dict):
        raise _mistyped(name, "an object of numbers by token id", value)
    if len(value) > MAX_LOGIT_BIASES:
        raise InvalidRequest(f"{name} must hold at most {MAX_LOGIT_BIASES} token ids, got {len(value)}.")
    return {_token_id(name, key): _number(name, bias) for key, bias in value.items()}


def _structured_outputs(name: str, value: Any) -> StructuredOutputsParams:
    try:
        if isinstance(value, str | bytes):
            return msgspec.json.decode(value, type=StructuredOutputsParams)
        return msgspec.convert(value, StructuredOutputsParams)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, InvalidRequest):
            raise error.__cause__ from error
        raise InvalidRequest(f"{name} must hold one of json, regex, choice, grammar and json_object: {error}.") from error
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidRequest(f"{name} must be a JSON object, or one as a text.") from error


def _token_id(name: str, value: Any) -> int:
    token_id = _integer(name, value)
    if not 0 <= token_id < 2**31:
        raise InvalidRequest(f"{name} must hold token ids of the model's vocabulary.")
    return token_id


def _refuse_unless_neutral(name: str, value: Any) -> None:
    if name == "lora_name":
        raise Unsupported("LoRA feature is not enabled.")
    refuse_unless_neutral(name, value, UNSUPPORTED[name])


def _mistyped(name: str, expected: str, value: Any) -> InvalidRequest:
    return InvalidRequest(f"{name} must be {expected}, got {_kind(value)}.")


def _kind(value: Any) -> str:
    """What a value is, as JSON names it; short values are shown."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value) if -_OUT_OF_RANGE < value < _OUT_OF_RANGE else "a number out of range"
    if isinstance(value, str):
        return f"the string '{value}'" if len(value) <= _LONGEST_NUMBER else "a long string"
    return "a list" if isinstance(value, list) else "an object"


def _unknown(name: str) -> InvalidRequest:
    near = difflib.get_close_matches(name[:_LONGEST_NAME], [*_READERS, *UNSUPPORTED], n=1)
    hint = f"did you mean '{near[0]}'?" if near else "known ones are those of vLLM's SamplingParams."
    return InvalidRequest(f"Unknown sampling parameter '{name[:_LONGEST_NAME]}'; {hint}")


_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
_READERS: dict[str, Callable[[str, Any], Any]] = {
    "n": _integer,
    "temperature": _number,
    "top_p": _number,
    "top_k": _integer,
    "min_p": _number,
    "presence_penalty": _number,
    "frequency_penalty": _number,
    "repetition_penalty": _number,
    "seed": _integer,
    "stop": _strings,
    "bad_words": _strings,
    "stop_token_ids": _token_ids,
    "include_stop_str_in_output": _boolean,
    "min_tokens": _integer,
    "max_tokens": _integer,
    "ignore_eos": _boolean,
    "logit_bias": _biases,
    "logprobs": _integer,
    "prompt_logprobs": _integer,
    "skip_special_tokens": _boolean,
    "detokenize": _boolean,
    "structured_outputs": _structured_outputs,
}
_FORMER_NAMES = {"guided_decoding": "structured_outputs"}
# What is not served, or no option of vLLM's any more, each with the value that asks for nothing and is therefore accepted.
UNSUPPORTED: dict[str, Any] = NOT_SERVED | {
    "beam_width": 1,
    "best_of": 1,
    "early_stopping": False,
    "length_penalty": 1.0,
    "logits_processors": None,
    "lora_name": None,
    "truncate_prompt_tokens": None,
    "use_beam_search": False,
}
