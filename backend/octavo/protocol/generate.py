"""Triton's generate dialect: a JSON object to a ``ModelInferRequest``, and the tensors of a reply to a JSON object.

A key that names an input of the model becomes that tensor, any other a request parameter; ``parameters`` is an object of
more such keys. An object or a list of objects for a string input (``messages``, ``sampling_parameters``) is that input's
JSON text. What the Open Inference Protocol's ``generate`` has beyond this is taken too: a list for ``stop``, and
``details``. Sampling options that are lists or objects travel in ``sampling_parameters``, as parameters cannot hold them.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from octavo.config import DEFAULT_LIMITS, RequestLimits
from octavo.errors import InvalidRequest, shown
from octavo.protocol.aliases import OPTIONS
from octavo.protocol.json_body import decode, parameter
from octavo.protocol.json_tensors import at_least, elements, packed
from octavo.protocol.json_tensors import unpacked as values_of
from octavo.protocol.parameters import MAX_PARAMETERS, read_sampling_json
from octavo.protocol.rejection import check_count
from octavo.protocol.sampling_fields import MAX_JSON_BYTES
from octavo.protocol.tensors import check_elements, datatype_name, text_of
from octavo.protocol.triton import HIDDEN
from octavo.text.request import GenerateChunk, SampleDelta
from octavo.wire import mc, pb

NESTED = "parameters"
_SAMPLING = "sampling_parameters"
_STRUCTURED_OPTIONS = {"stop", "stop_token_ids", "logit_bias", "structured_outputs"}
_BODY = msgspec.json.Decoder(dict[str, msgspec.Raw])
_FLAG = msgspec.json.Decoder(bool)
_TEXT = msgspec.json.Decoder(str)
_ANY = msgspec.json.Decoder()
_OBJECTS = re.compile(rb"\s*(?:\[\s*)?\{")
_FINISHES = {"length": "length", "abort": "abort"}


class GenerateCall(NamedTuple):
    """A request, and whether its reply has the Open Inference Protocol's ``details``."""

    request: pb.ModelInferRequest
    details: bool


def read_generate(body: bytes, config: mc.ModelConfig, version: str, limits: RequestLimits = DEFAULT_LIMITS) -> GenerateCall:
    """The call that ``body`` is, for the model of ``config``. Raises ``InvalidRequest`` with Triton's texts."""
    members = decode(_BODY, body)
    check_count(len(members), MAX_PARAMETERS, "keys")
    nested = _nested(members.pop(NESTED)) if NESTED in members else {}
    check_count(len(nested), MAX_PARAMETERS, NESTED)
    request_id = _id(members.pop("id", None))
    members |= nested
    datatypes = {tensor.name: datatype_name(tensor.data_type) for tensor in config.input}
    for name, value in members.items():
        check_elements(name, at_least(datatypes.get(name, "BYTES"), value), limits)
    details = _flag("details", members.pop("details", None))
    return GenerateCall(_request(members, config, version, request_id, details), details)


def write_generate(response: pb.ModelInferResponse) -> dict[str, Any]:
    """The members of a reply, in alphabetical order as Triton's; a tensor of one element is that element."""
    members: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id:
        members["id"] = response.id
    for output, data in zip(response.outputs, response.raw_output_contents, strict=True):
        values = values_of(output.datatype, data)
        members[output.name] = values[0] if len(values) == 1 else values
    return dict(sorted(members.items()))


def details_of(chunk: GenerateChunk, token_text: Callable[[int], str], special_ids: frozenset[int]) -> list[dict[str, Any]]:
    """The Open Inference Protocol's ``details`` of each sample: the new tokens, and why it ended once it has."""
    return [_details(sample, token_text, special_ids) for sample in chunk.samples]


def _details(sample: SampleDelta, token_text: Callable[[int], str], special_ids: frozenset[int]) -> dict[str, Any]:
    tokens = [
        {"id": entry.token_ids[0], "text": token_text(entry.token_ids[0]), "logprob": entry.logprobs[0], "special": special}
        for entry in sample.logprobs or ()
        for special in [entry.token_ids[0] in special_ids]
    ]
    if sample.finish_reason is None:
        return {"logprobs": tokens}
    stopped = "eos_token" if sample.stop_reason is None else "stop_sequence"
    return {"finish_reason": _FINISHES.get(sample.finish_reason, stopped), "logprobs": tokens}


def _request(
    members: dict[str, msgspec.Raw], config: mc.ModelConfig, version: str, request_id: str, details: bool
) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=config.name, model_version=version, id=request_id)
    inputs = {tensor.name: (datatype_name(tensor.data_type), tuple(tensor.dims)) for tensor in config.input}
    structured: dict[str, Any] = {}
    for name, value in members.items():
        if name in inputs and name != _SAMPLING:
            _add_tensor(request, name, *inputs[name], value)
        elif _is_hidden_tensor(name, value):
            _add_tensor(request, name, HIDDEN[name].datatype, HIDDEN[name].dims, value)
        elif name in _STRUCTURED_OPTIONS and memoryview(value)[:1] in (b"[", b"{"):
            structured[name] = _structured(name, value)
        elif name != _SAMPLING:
            request.parameters[name].CopyFrom(parameter(name, value))
    if details and "logprobs" not in members:
        request.parameters["logprobs"].int64_param = 0
    if _SAMPLING in members:
        structured |= read_sampling_json(_sampling(members[_SAMPLING]).encode())
    if structured:
        request.inputs.add(name=_SAMPLING, datatype="BYTES", shape=[1])
        request.raw_input_contents.append(packed(_SAMPLING, "BYTES", [msgspec.json.encode(structured).decode()]))
    return request


def _is_hidden_tensor(name: str, value: msgspec.Raw) -> bool:
    """Whether a key is an input that no model declares: all but single sampling options, which are parameters."""
    if name in _STRUCTURED_OPTIONS:
        return name in HIDDEN and memoryview(value) in (b"true", b"false")
    return name in HIDDEN and (name not in OPTIONS or (OPTIONS[name].many and memoryview(value)[:1] == b"["))


def _add_tensor(request: pb.ModelInferRequest, name: str, datatype: str, dims: Sequence[int], value: msgspec.Raw) -> None:
    values = _values(name, datatype, value)
    request.inputs.add(name=name, datatype=datatype, shape=_shape(name, dims, len(values)))
    request.raw_input_contents.append(packed(name, datatype, values))


def _values(name: str, datatype: str, value: msgspec.Raw) -> list[Any]:
    """The elements of an input; for one of strings, JSON that is no string stands for its own text."""
    if datatype == "BYTES" and _OBJECTS.match(memoryview(value)):
        return [text_of(name, bytes(value))]
    return elements(name, datatype, value)


def _structured(name: str, value: msgspec.Raw) -> Any:
    if (size := len(memoryview(value))) > MAX_JSON_BYTES:
        raise InvalidRequest(f"{name} must have at most {MAX_JSON_BYTES} bytes, got {size}.")
    return decode(_ANY, value)


def _shape(name: str, dims: Sequence[int], count: int) -> list[int]:
    """``dims`` with what is free in it set so that ``count`` elements fit: the innermost to all of them, others to 1."""
    fixed = math.prod(dim for dim in dims if dim != -1)
    free = [place for place, dim in enumerate(dims) if dim == -1]
    if fixed == 0 or count % fixed or (not free and count != fixed):
        raise InvalidRequest(f"The schema can not convert input '{name}' to tensor with proper shape")
    sizes = dict.fromkeys(free, 1) | ({free[-1]: count // fixed} if free else {})
    return [sizes.get(place, dim) for place, dim in enumerate(dims)]


def _nested(value: msgspec.Raw) -> dict[str, msgspec.Raw]:
    try:
        return _BODY.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest(f"Expected JSON object for keyword: '{NESTED}'") from None


def _id(value: msgspec.Raw | None) -> str:
    try:
        return "" if value is None else _TEXT.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequest("Unable to parse 'id': attempt to access JSON non-string as string") from None


def _flag(name: str, value: msgspec.Raw | None) -> bool:
    try:
        return value is not None and _FLAG.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequest(f"{shown(name)} must be true or false.") from None


def _sampling(value: msgspec.Raw) -> str:
    return str(next(iter(_values(_SAMPLING, "BYTES", value)), ""))
