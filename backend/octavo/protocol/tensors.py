"""Input tensors of a ``ModelInferRequest``: checked against the model's own, then as Python values. Knows no meaning of a name.

Every size is checked with exact integers before anything is copied. The texts are Triton's, and so is their order: what its
gRPC layer finds (repeated names, missing data), then its core (number, name, type, shape, size), then its backends (strings).
"""

import math
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple, NoReturn

from octavo.config import DEFAULT_LIMITS, RequestLimits
from octavo.errors import InvalidRequest, NotFound, shown
from octavo.protocol.rejection import RejectedRequest, check_count, prefixed
from octavo.protocol.strings import StringTensor
from octavo.wire import mc, pb

MAX_DIMS = 8
# Types of one size, with their code for ``struct``. FP16 and BF16 are absent: no model here takes them.
_CODES = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP32": "f",
    "FP64": "d",
}
_SIZES = {name: struct.calcsize("<" + code) for name, code in _CODES.items()}
_NAMES = {*_CODES, "BYTES", "FP16", "BF16"}
# A field of typed contents, the type that Triton names it by, and the narrower types that share it.
_FIELDS: dict[str, tuple[str, ...]] = {
    "bool_contents": ("BOOL",),
    "int_contents": ("INT32", "INT16", "INT8"),
    "int64_contents": ("INT64",),
    "uint_contents": ("UINT32", "UINT16", "UINT8"),
    "uint64_contents": ("UINT64",),
    "fp32_contents": ("FP32",),
    "fp64_contents": ("FP64",),
    "bytes_contents": ("BYTES",),
}
_FIELD_OF = {name: field for field, names in _FIELDS.items() for name in names}


class TensorSpec(NamedTuple):
    """One tensor as a model takes it; ``datatype`` is the wire's name (``BYTES``, ``BOOL``), ``alternatives`` are others that do.

    ``batched``: may come once per prompt, with a dimension for that before ``dims``, or in place of them if they are [1].
    ``hidden``: taken though no model declares it. ``replaces``: a required input that need not come when this one does.
    """

    datatype: str
    dims: tuple[int, ...]
    optional: bool
    alternatives: tuple[str, ...] = ()
    batched: bool = False
    hidden: bool = False
    replaces: str = ""


Element = bool | int | float | bytes


def datatype_name(data_type: mc.DataType) -> str:
    """The wire's name of a configuration's data type."""
    name = mc.DataType.Name(data_type).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def check_outputs(model: str, outputs: Iterable[pb.ModelInferRequest.InferRequestedOutputTensor], known: Mapping[str, str]) -> None:
    """Refuse outputs that the model does not have, and ways to return one that cannot be. ``known``: datatype by name."""
    for output in outputs:
        if "shared_memory_region" in output.parameters:
            raise _unknown_region(output.parameters["shared_memory_region"])
        if output.name not in known:
            raise RejectedRequest(f"unexpected inference output '{shown(output.name)}' for model '{model}'")
        if "classification" in output.parameters:
            raise InvalidRequest(f"class result not available for output due to unsupported type '{known[output.name]}'")


class Inputs:
    """The input tensors of one model, ready to read requests by."""

    def __init__(self, model: str, specs: Mapping[str, TensorSpec], limits: RequestLimits = DEFAULT_LIMITS) -> None:
        """``specs``: by name, those that are taken though not declared included."""
        self._model, self._specs, self._limits = model, specs, limits
        self._declared = [name for name, spec in specs.items() if not spec.hidden]
        self._required = [name for name in self._declared if not specs[name].optional]

    def read(self, request: pb.ModelInferRequest) -> dict[str, list[Element]]:
        """The elements of every input, by name. Raises ``RejectedRequest`` or, for damaged strings, ``InvalidRequest``."""
        tensors = {tensor.name: tensor for tensor in request.inputs}
        if len(tensors) < len(request.inputs):
            _refuse_repeats(request)
        data = [self._data(request, place, tensor) for place, tensor in enumerate(tensors.values())]
        self._check_number(request.id, list(tensors))
        counts = [self._count(request.id, tensor, raw) for tensor, raw in zip(tensors.values(), data, strict=True)]
        return {
            name: self._elements(request.id, tensor, raw, count)
            for (name, tensor), raw, count in zip(tensors.items(), data, counts, strict=True)
        }

    def _data(self, request: pb.ModelInferRequest, place: int, tensor: pb.ModelInferRequest.InferInputTensor) -> bytes | None:
        """The raw bytes of an input, None if its contents are typed. Extra raw entries are never looked at."""
        if "shared_memory_region" in tensor.parameters:
            raise _unknown_region(tensor.parameters["shared_memory_region"])
        if tensor.HasField("contents"):
            if request.raw_input_contents:
                name = shown(tensor.name)
                raise RejectedRequest(
                    f"contents field must not be specified when using raw_input_contents for '{name}' for model '{self._model}'"
                )
            _check_field(self._model, tensor)
            return None
        if place >= len(request.raw_input_contents):
            name = shown(tensor.name)
            raise RejectedRequest(f"unable to find data for input tensor '{name}' for model '{self._model}' in request.")
        return request.raw_input_contents[place]

    def _check_number(self, request_id: str, names: list[str]) -> None:
        specs, declared = self._specs, self._declared
        replaced = {specs[name].replaces for name in names if name in specs}
        given = [name for name in names if name not in specs or not specs[name].hidden]
        required = [name for name in self._required if name not in replaced]
        missing = [name for name in required if name not in given]
        if len(required) <= len(given) <= len(declared) and (not missing or not all(name in specs for name in given)):
            return
        most = len(declared)
        expected = f"{most} inputs" if len(required) == most else f"number of inputs between {len(required)} and {most}"
        # With nothing missing Triton leaves the bracket unopened; its text is kept as it is.
        absent = f"[{_quoted(missing)}]" if missing else "]"
        raise prefixed(
            request_id,
            f"expected {expected} but got {len(given)} inputs for model '{self._model}'. Got input(s) [{_quoted(given)}], "
            f"but missing required input(s) {absent}. Please provide all required input(s).",
        )

    def _count(self, request_id: str, tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | None) -> int:
        """How many elements an input has, if it is one that the model takes."""
        model, name = self._model, tensor.name
        spec, datatype = self._specs.get(name), tensor.datatype
        if spec is None:
            raise RejectedRequest(f"unexpected inference input '{shown(name)}' for model '{model}'")
        if datatype != spec.datatype and datatype not in spec.alternatives:
            got = _type_shown(datatype)
            text = f"inference input '{shown(name)}' data-type is '{got}', but model '{model}' expects '{spec.datatype}'"
            raise prefixed(request_id, text)
        shape = tuple(tensor.shape[: MAX_DIMS + 1])
        if min(shape, default=0) < 0:
            text = f"All input dimensions should be specified for input '{shown(name)}' for model '{model}', got {_shape(shape)}"
            raise prefixed(request_id, text)
        if not (_fits(shape, spec.dims) or (spec.batched and _fits_batched(shape, spec.dims))):
            expected = _shape(spec.dims)
            text = f"unexpected shape for input '{shown(name)}' for model '{model}'. Expected {expected}, got {_shape(shape)}. "
            raise prefixed(request_id, text)
        count = math.prod(shape)
        if datatype != "BYTES":
            size = _SIZES[datatype]
            given = len(raw) if raw is not None else len(getattr(tensor.contents, _FIELD_OF[datatype])) * size
            if given != count * size:
                text = (
                    f"input byte size mismatch for input '{shown(name)}' for model '{model}'. Expected {count * size}, got {given}"
                )
                raise prefixed(request_id, text)
        check_elements(name, count, self._limits)
        return count

    def _elements(
        self, request_id: str, tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | None, count: int
    ) -> list[Element]:
        datatype = tensor.datatype
        if datatype == "BYTES":
            strings = StringTensor(self._model, request_id, tensor.name, count)
            return list(strings.unpack(raw) if raw is not None else strings.check(tensor.contents.bytes_contents))
        if raw is not None:
            return list(struct.unpack(f"<{count}{_CODES[datatype]}", raw))
        return list(getattr(tensor.contents, _FIELD_OF[datatype]))


def text_of(name: str, element: Element) -> str:
    """The text that an element of a string tensor is. Raises ``InvalidRequest``."""
    try:
        return element.decode() if isinstance(element, bytes) else str(element)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The input '{name}' must be valid UTF-8, but byte {error.start} is not.") from error


def check_counts(inputs: int, outputs: int, limits: RequestLimits) -> None:
    """Refuse more tensors than a request may have, before anything is done for each."""
    check_count(inputs, limits.inputs, "inputs")
    check_count(outputs, limits.outputs, "requested outputs")


def check_elements(name: str, count: int, limits: RequestLimits) -> None:
    """Refuse a tensor of more elements than one may have, before any of them is read."""
    if count > limits.elements:
        raise RejectedRequest(f"The input '{shown(name)}' must have at most {limits.elements} elements, got {count}.")


def _refuse_repeats(request: pb.ModelInferRequest) -> NoReturn:
    names = [tensor.name for tensor in request.inputs]
    again = next(name for place, name in enumerate(names) if name in names[:place])
    raise prefixed(request.id, f"input '{shown(again)}' already exists in request")


def _check_field(model: str, tensor: pb.ModelInferRequest.InferInputTensor) -> None:
    """Typed contents must stand in the field of the declared type."""
    for field, names in _FIELDS.items():
        if len(getattr(tensor.contents, field)) and tensor.datatype not in names:
            raise RejectedRequest(
                f"unexpected explicit tensor data for input tensor '{shown(tensor.name)}' for model '{model}' "
                f"of type '{names[0]}', expected datatype '{_type_shown(tensor.datatype)}'"
            )


def _fits_batched(shape: tuple[int, ...], dims: tuple[int, ...]) -> bool:
    """Whether ``shape`` holds ``dims`` once per prompt."""
    if dims == (1,) and len(shape) == 1:
        return shape[0] >= 0
    return len(shape) == len(dims) + 1 and shape[0] >= 0 and _fits(shape[1:], dims)


def _fits(shape: tuple[int, ...], dims: tuple[int, ...]) -> bool:
    """Whether ``shape`` is ``dims``, with or without a batch dimension of 1 before it; -1 admits any size."""
    if shape == dims:
        return min(shape, default=0) >= 0
    if len(shape) == len(dims) + 1 and shape[0] == 1:
        shape = shape[1:]
    return len(shape) == len(dims) and all(size >= 0 and dim in (-1, size) for size, dim in zip(shape, dims, strict=True))


def _unknown_region(parameter: pb.InferParameter) -> NotFound:
    return NotFound(f"Unable to find shared memory region: '{shown(parameter.string_param)}'")


def _type_shown(datatype: str) -> str:
    return datatype if datatype in _NAMES else "<invalid>"


def _shape(dims: tuple[int, ...]) -> str:
    return "[" + ",".join(map(str, dims[:MAX_DIMS])) + (",...]" if len(dims) > MAX_DIMS else "]")


def _quoted(names: list[str]) -> str:
    return ",".join(f"'{shown(name)}'" for name in names)
