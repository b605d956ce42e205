"""KServe v2 REST with Triton's binary tensors: the body of an ``infer`` call to a ``ModelInferRequest``, and its reply back.

A body is JSON, or JSON of a length that a header tells and then the bytes of those inputs that say how many they have.
"""

import math
from typing import Annotated, Any, NamedTuple

import msgspec

from octavo.config import DEFAULT_LIMITS, RequestLimits
from octavo.errors import InvalidRequest, shown
from octavo.protocol.json_body import decode, parameter
from octavo.protocol.json_tensors import MISFIT, at_least, elements, packed, unpacked
from octavo.protocol.parameters import MAX_PARAMETERS
from octavo.protocol.rejection import RejectedRequest, check_count, prefixed
from octavo.protocol.tensors import check_counts, check_elements
from octavo.wire import pb

HEADER_LENGTH = "Inference-Header-Content-Length"
MAX_TENSOR_PARAMETERS = 8
MAX_SHAPE = 32
RESERVED = "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified."


class Binary(NamedTuple):
    """Which outputs are to come as bytes: those of ``outputs`` by their flag, all others by ``default``."""

    default: bool
    outputs: dict[str, bool]

    def wanted(self, name: str) -> bool:
        """Whether output ``name`` comes as bytes."""
        return self.outputs.get(name, self.default)


Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Input(msgspec.Struct):
    name: str
    datatype: str
    shape: Annotated[list[Size], msgspec.Meta(max_length=MAX_SHAPE)]
    data: msgspec.Raw = msgspec.Raw()
    parameters: dict[str, msgspec.Raw] = {}


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, msgspec.Raw] = {}


class _Request(msgspec.Struct):
    inputs: list[_Input]
    id: str = ""
    parameters: dict[str, msgspec.Raw] = {}
    outputs: list[_Output] = []


_REQUEST = msgspec.json.Decoder(_Request)
_FLAG = msgspec.json.Decoder(bool)
_SIZE = msgspec.json.Decoder(Size)
_TEXT = msgspec.json.Decoder(str)


def header_length(value: str | None, body_length: int) -> int:
    """How many bytes of a body are JSON, by the header's ``value``. Raises ``InvalidRequest`` with Triton's texts."""
    if value is None:
        return body_length
    if not (value.isascii() and value.lstrip("-").isdigit() and len(value) < 20):
        raise InvalidRequest(f"Unable to parse {HEADER_LENGTH}, got: {shown(value)}")
    if not 0 <= int(value) <= body_length:
        raise InvalidRequest(f"inference header size should be in range (0, {body_length}), got: {value}")
    return int(value)


def read_infer(
    body: bytes, json_length: int, model: str, version: str, num_inputs: int, limits: RequestLimits = DEFAULT_LIMITS
) -> tuple[pb.ModelInferRequest, Binary]:
    """The request in ``body`` and how it wants its outputs. Raises ``InvalidRequest`` with Triton's texts."""
    if json_length == 0:
        # Triton takes such a body as the data of a model's only input.
        raise prefixed(
            "",
            f"Raw request must only have 1 input (found 1) to be deduced but got {num_inputs} inputs in "
            f"'{shown(model)}' model configuration",
        )
    parsed = decode(_REQUEST, body[:json_length])
    check_counts(len(parsed.inputs), len(parsed.outputs), limits)
    check_count(len(parsed.parameters), MAX_PARAMETERS, "parameters")
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=parsed.id)
    for name, value in parsed.parameters.items():
        if name.startswith("triton_"):
            raise RejectedRequest(RESERVED)
        request.parameters[name].CopyFrom(parameter(name, value))
    at = json_length
    for tensor in parsed.inputs:
        check_elements(tensor.name, math.prod(tensor.shape), limits)
        at = _add_input(request, tensor, body, at, model)
    if at != len(body):
        raise InvalidRequest(f"unexpected additional input data for model '{shown(model)}'")
    outputs = {output.name: _add_output(request, output) for output in parsed.outputs}
    default = _member(parsed.parameters, "binary_data_output", _FLAG, "boolean") or False
    return request, Binary(default, {name: flag for name, flag in outputs.items() if flag is not None})


def write_infer(response: pb.ModelInferResponse, binary: Binary) -> tuple[bytes, int | None]:
    """The body of a reply, and the length of its JSON if bytes follow that."""
    outputs, tail = [], []
    for output, data in zip(response.outputs, response.raw_output_contents, strict=True):
        described: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        if binary.wanted(output.name):
            described["parameters"] = {"binary_data_size": len(data)}
            tail.append(data)
        else:
            described["data"] = unpacked(output.datatype, data)
        outputs.append(described)
    named = {"id": response.id} if response.id else {}
    head = {**named, "model_name": response.model_name, "model_version": response.model_version, "outputs": outputs}
    text = msgspec.json.encode(head)
    return b"".join([text, *tail]), len(text) if tail else None


def _add_input(request: pb.ModelInferRequest, tensor: _Input, body: bytes, at: int, model: str) -> int:
    """Add ``tensor`` to ``request``; where the bytes of the next input begin."""
    check_count(len(tensor.parameters), MAX_TENSOR_PARAMETERS, f"parameters of input '{shown(tensor.name)}'")
    _check_source(tensor)
    added = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    if (region := _member(tensor.parameters, "shared_memory_region", _TEXT, "string")) is not None:
        added.parameters["shared_memory_region"].string_param = region
        return at
    size = _member(tensor.parameters, "binary_data_size", _SIZE, "unsigned-integer")
    if size is None:
        if at_least(tensor.datatype, tensor.data) > max(math.prod(tensor.shape), 1):
            raise InvalidRequest(MISFIT)
        values = elements(tensor.name, tensor.datatype, tensor.data)
        if len(values) != math.prod(tensor.shape):
            raise InvalidRequest(MISFIT)
        request.raw_input_contents.append(packed(tensor.name, tensor.datatype, values))
        return at
    missing = at + size - len(body)
    if missing > 0:
        raise InvalidRequest(
            f"unexpected size for input '{shown(tensor.name)}', expecting {missing} additional bytes for model '{shown(model)}'"
        )
    request.raw_input_contents.append(body[at : at + size])
    return at + size


def _check_source(tensor: _Input) -> None:
    sources = {
        "'data'": len(memoryview(tensor.data)) > 0,
        "'binary_data_size'": "binary_data_size" in tensor.parameters,
        "'shared_memory_region'": "shared_memory_region" in tensor.parameters,
    }
    given = [name for name, there in sources.items() if there]
    if len(given) != 1:
        raise InvalidRequest(
            "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "
            "'shared_memory_region' in 'parameters'. But " + (f"set {' '.join(given)}" if given else "no field is set")
        )


def _add_output(request: pb.ModelInferRequest, output: _Output) -> bool | None:
    """Ask for ``output``; whether it is to come as bytes, None if it does not say."""
    check_count(len(output.parameters), MAX_TENSOR_PARAMETERS, f"parameters of output '{shown(output.name)}'")
    added = request.outputs.add(name=output.name)
    if (region := _member(output.parameters, "shared_memory_region", _TEXT, "string")) is not None:
        added.parameters["shared_memory_region"].string_param = region
    if classes := _member(output.parameters, "classification", _SIZE, "unsigned-integer"):
        added.parameters["classification"].int64_param = classes
    return _member(output.parameters, "binary_data", _FLAG, "boolean")


def _member(members: dict[str, msgspec.Raw], name: str, decoder: "msgspec.json.Decoder[Any]", kind: str) -> Any:
    """The value of a member, None if it is absent. Raises ``InvalidRequest`` with Triton's text for one of another kind."""
    if name not in members:
        return None
    try:
        return decoder.decode(members[name])
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        raise InvalidRequest(f"Unable to parse '{name}': attempt to access JSON non-{kind} as {kind}") from None
