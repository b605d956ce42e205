"""The one table of names that TensorRT-LLM's clients send, and what each is here. Knows no meaning beyond that.

The names are those of its ensemble, of its core model and of its LLM-API model. Defaults stay ours. Numbers may come in any
width, alone or once per prompt, and an empty string in a list of words asks for nothing, as those clients mean it.
"""

from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

from octavo.errors import InvalidRequest, Unsupported
from octavo.protocol.tensors import Element, TensorSpec, text_of

_INTEGER = ("INT32", "INT64", "UINT32", "UINT64")
_NUMBER = ("FP32", "FP64")
_WORDS = ("BYTES",)
_FLAG = ("BOOL",)


Words: TypeAlias = list[tuple[int, ...]]


class Option(NamedTuple):
    """An input that is a sampling option here; ``many``: a list of them."""

    datatypes: tuple[str, ...]
    name: str
    many: bool = False


OPTIONS: dict[str, Option] = {
    "max_tokens": Option(_INTEGER, "max_tokens"),
    "request_output_len": Option(_INTEGER, "max_tokens"),
    "min_tokens": Option(_INTEGER, "min_tokens"),
    "min_length": Option(_INTEGER, "min_tokens"),
    "temperature": Option(_NUMBER, "temperature"),
    "top_p": Option(_NUMBER, "top_p"),
    "runtime_top_p": Option(_NUMBER, "top_p"),
    "top_k": Option(_INTEGER, "top_k"),
    "runtime_top_k": Option(_INTEGER, "top_k"),
    "seed": Option(_INTEGER, "seed"),
    "random_seed": Option(_INTEGER, "seed"),
    "presence_penalty": Option(_NUMBER, "presence_penalty"),
    "frequency_penalty": Option(_NUMBER, "frequency_penalty"),
    "repetition_penalty": Option(_NUMBER, "repetition_penalty"),
    "length_penalty": Option(_NUMBER, "length_penalty"),
    "num_return_sequences": Option(_INTEGER, "n"),
    "beam_width": Option(_INTEGER, "beam_width"),
    "stop_words": Option(_WORDS, "stop", many=True),
    "bad_words": Option(_WORDS, "bad_words", many=True),
    "end_id": Option(_INTEGER, "stop_token_ids", many=True),
    "sampling_param_max_tokens": Option(_INTEGER, "max_tokens"),
    "sampling_param_temperature": Option(_NUMBER, "temperature"),
    "sampling_param_top_p": Option(_NUMBER, "top_p"),
    "sampling_param_top_k": Option(_INTEGER, "top_k"),
    "sampling_param_seed": Option(_INTEGER, "seed"),
    "sampling_param_presence_penalty": Option(_NUMBER, "presence_penalty"),
    "sampling_param_frequency_penalty": Option(_NUMBER, "frequency_penalty"),
    "sampling_param_best_of": Option(_INTEGER, "best_of"),
    "sampling_param_stop": Option(_WORDS, "stop", many=True),
}
# Flags of another name.
FLAGS = {
    "streaming": "stream",
    "return_log_probs": "return_cumulative_logprob",
    "sampling_param_exclude_input_from_output": "exclude_input_in_output",
}
# Outputs of another name, each with the flag of another name that asks for it.
OUTPUTS = {"cum_log_probs": ("cumulative_logprob", "return_log_probs")}
# Flags for what is not answered: false changes nothing, true is refused.
_UNANSWERED = (
    "return_context_logits",
    "return_generation_logits",
    "return_perf_metrics",
    "sampling_param_return_perf_metrics",
)
# Words as token ids: a row of the ids of all words, and a row of where each word ends, with -1 behind the last.
_STOP_WORDS, _BAD_WORDS = "stop_words_list", "bad_words_list"
# What an answer must look like, in two parts: a kind, and its text unless the kind is any JSON.
_GUIDE_TYPE, _GUIDE = "guided_decoding_guide_type", "guided_decoding_guide"
_GUIDES = {"json_schema": "json", "regex": "regex", "ebnf_grammar": "grammar"}
# What is padded here is told apart by lengths.
_IGNORED = ("pad_id",)


def _spec(datatypes: tuple[str, ...], many: bool = False) -> TensorSpec:
    return TensorSpec(datatypes[0], (-1,) if many else (1,), True, datatypes[1:], batched=not many, hidden=True)


ALIASES: dict[str, TensorSpec] = {
    "return_stop_reason": _spec(_FLAG),
    **{name: TensorSpec("INT32", (2, -1), True, hidden=True) for name in (_STOP_WORDS, _BAD_WORDS)},
    **{name: _spec(option.datatypes, option.many) for name, option in OPTIONS.items()},
    **{name: _spec(_FLAG) for name in (*FLAGS, *_UNANSWERED)},
    **{name: _spec(_WORDS) for name in (_GUIDE_TYPE, _GUIDE)},
    **{name: _spec(_INTEGER) for name in _IGNORED},
}


class Translation(NamedTuple):
    """Tensors under our names, and what others of them are: sampling options, and words as token ids, see ``GenerateRequest``."""

    tensors: dict[str, list[Element]]
    options: dict[str, Any]
    stop_words: Words
    bad_words: Words


def translate(tensors: Mapping[str, list[Element]]) -> Translation:
    """Raises ``InvalidRequest``, ``Unsupported``."""
    if ALIASES.keys().isdisjoint(tensors):
        return Translation(dict(tensors), {}, [], [])
    ours: dict[str, list[Element]] = {}
    options: dict[str, Any] = {}
    stops, bads = (_words(name, tensors.get(name, [])) for name in (_STOP_WORDS, _BAD_WORDS))
    for name, values in tensors.items():
        if name in OPTIONS:
            _put(options, OPTIONS[name].name, _option(name, values), name)
        elif name in FLAGS:
            _put(ours, FLAGS[name], [_single(name, values)], name)
        elif name in _UNANSWERED:
            _refuse_if_true(name, values)
        elif name not in (*_IGNORED, _STOP_WORDS, _BAD_WORDS, _GUIDE_TYPE, _GUIDE):
            _put(ours, name, values, name)
    guide = {name: text_of(name, _single(name, tensors[name])) for name in (_GUIDE_TYPE, _GUIDE) if name in tensors}
    if wish := _structure(guide):
        _put(options, "structured_outputs", wish, _GUIDE_TYPE)
    if tokens := [word[0] for word in stops if len(word) == 1]:
        options["stop_token_ids"] = [*options.get("stop_token_ids", ()), *tokens]
    return Translation(ours, options, [word for word in stops if len(word) > 1], bads)


def option_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling options that came as parameters, under our names."""
    ours: dict[str, Any] = {}
    if wish := _structure({name: str(options[name]) for name in (_GUIDE_TYPE, _GUIDE) if name in options}):
        ours["structured_outputs"] = wish
    for name, value in options.items():
        alias = OPTIONS.get(name)
        if name in (_GUIDE_TYPE, _GUIDE):
            continue
        if alias is None:
            _put(ours, name, value, name)
        elif not alias.many:
            _put(ours, alias.name, value, name)
        elif value != "":
            _put(ours, alias.name, value if isinstance(value, str) else [value], name)
    return ours


def output_names(asked: Iterable[str], given: Collection[str], listed: Collection[str]) -> tuple[str, ...]:
    """What to call the outputs that are ``asked`` for: as they are ``listed``; if none is, as the flags ``given`` call them."""
    renamed = {ours: theirs for theirs, (ours, flag) in OUTPUTS.items() if flag in given}
    if not listed:
        return tuple(renamed.get(name, name) for name in asked)
    theirs = {ours: theirs for theirs, (ours, _) in OUTPUTS.items()}
    return tuple(name for ours in asked for name in (ours, theirs.get(ours, "")) if name in listed)


def _put(into: dict[str, Any], name: str, value: Any, given: str) -> None:
    if name in into:
        raise InvalidRequest(f"The request says '{name}' more than once, the second time as '{given}'; it must say it once.")
    into[name] = value


def _option(name: str, values: list[Element]) -> Any:
    if not OPTIONS[name].many:
        return _single(name, values)
    if OPTIONS[name].datatypes == _WORDS:
        return [text_of(name, value) for value in values if value]
    return [value for value in values if not (isinstance(value, int) and value < 0)]


def _structure(guide: Mapping[str, str]) -> dict[str, Any] | None:
    """What a guide of that type asks for, None if there is none. Raises ``InvalidRequest``."""
    kind, text = guide.get(_GUIDE_TYPE, ""), guide.get(_GUIDE, "")
    if not kind and not text:
        return None
    if kind == "json" and not text:
        return {"json_object": True}
    if kind not in _GUIDES or not text:
        raise InvalidRequest(
            f"The input '{_GUIDE_TYPE}' must be one of json_schema, regex and ebnf_grammar with a '{_GUIDE}', or json without."
        )
    return {_GUIDES[kind]: text}


def _words(name: str, values: list[Element]) -> Words:
    """The words of a list. Raises ``InvalidRequest``."""
    numbers = [int(value) for value in values]
    ids, ends = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
    ends = ends[: ends.index(-1)] if -1 in ends else ends
    places = list(pairwise([0, *ends]))
    if any(end > len(ids) or end <= begin for begin, end in places):
        raise InvalidRequest(f"The second row of '{name}' must say where each word ends in the first, with -1 behind the last.")
    return [tuple(ids[begin:end]) for begin, end in places]


def _single(name: str, values: list[Element]) -> Element:
    if not values or any(value != values[0] for value in values):
        raise InvalidRequest(f"The input '{name}' must have the same value for every prompt of a request.")
    return values[0]


def _refuse_if_true(name: str, values: Iterable[object]) -> None:
    if any(values):
        raise Unsupported(f"The input '{name}' is not supported yet; leave it out.")
