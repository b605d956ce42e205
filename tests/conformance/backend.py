"""Test models behind Octavo's front end: what Triton's ``triton_models`` of the same names do, without an engine.

Envelopes are read and refused, and failures worded, by the server's own code; only the computing is ours.
"""

import asyncio
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import ClassVar, NamedTuple

from octavo.config import DEFAULT_LIMITS
from octavo.errors import Cancelled, EngineDead, Internal, InvalidRequest, OctavoError, Unsupported
from octavo.protocol.parameters import read_parameters
from octavo.protocol.rejection import check_id
from octavo.protocol.tensors import Element, TensorSpec, check_counts, check_outputs
from octavo.protocol.tensors import Inputs as ModelInputs
from octavo.wire import pb

CODES = {"BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i",
         "INT64": "q", "FP32": "f", "FP64": "d"}  # fmt: skip
KINDS = (*CODES, "BYTES")
ERRORS: dict[str, type[OctavoError]] = {
    "INTERNAL": Internal,
    "INVALID_ARG": InvalidRequest,
    "UNAVAILABLE": EngineDead,
    "UNSUPPORTED": Unsupported,
    "CANCELLED": Cancelled,
}
Inputs = dict[str, list[Element]]


class Result(NamedTuple):
    """One response: a tensor's datatype and values by name."""

    tensors: dict[str, tuple[str, list[Element]]]
    final: bool


class TestModel:
    """A model with ``inputs`` and ``outputs``; this one has no answers."""

    __test__ = False
    inputs: ClassVar[dict[str, TensorSpec]] = {}
    outputs: ClassVar[dict[str, str]] = {}

    async def results(self, inputs: Inputs) -> AsyncIterator[Result]:
        """The responses to one request."""
        raise NotImplementedError
        yield


class AddSub(TestModel):
    """Sum and difference of two tensors."""

    inputs: ClassVar = {name: TensorSpec("FP32", (4,), optional=False) for name in ("INPUT0", "INPUT1")}
    outputs: ClassVar = {"OUTPUT0": "FP32", "OUTPUT1": "FP32"}

    async def results(self, inputs: Inputs) -> AsyncIterator[Result]:
        pairs = list(zip(inputs["INPUT0"], inputs["INPUT1"], strict=True))
        sums, differences = [left + right for left, right in pairs], [left - right for left, right in pairs]
        yield Result({"OUTPUT0": ("FP32", sums), "OUTPUT1": ("FP32", differences)}, final=True)


class Identity(TestModel):
    """Every input back."""

    inputs: ClassVar = {f"IN_{kind}": TensorSpec(kind, (-1,), optional=True) for kind in KINDS}
    outputs: ClassVar = {f"OUT_{kind}": kind for kind in KINDS}

    async def results(self, inputs: Inputs) -> AsyncIterator[Result]:
        kinds = {name.removeprefix("IN_"): values for name, values in inputs.items()}
        yield Result({f"OUT_{kind}": (kind, values) for kind, values in kinds.items()}, final=True)


class Repeat(TestModel):
    """One response per element, and then the error that is asked for."""

    inputs: ClassVar = {
        "IN": TensorSpec("INT32", (-1,), optional=False),
        "DELAY_MS": TensorSpec("INT32", (1,), optional=True),
        "ERROR": TensorSpec("BYTES", (1,), optional=True),
    }
    outputs: ClassVar = {"OUT": "INT32"}

    async def results(self, inputs: Inputs) -> AsyncIterator[Result]:
        error = inputs.get("ERROR", [b""])[0].decode()
        for place, value in enumerate(inputs["IN"], 1):
            await asyncio.sleep(inputs.get("DELAY_MS", [0])[0] / 1000)
            yield Result({"OUT": ("INT32", [value])}, final=place == len(inputs["IN"]) and not error)
        if error:
            raise ERRORS[error](f"it failed with {error}")


MODELS: dict[str, TestModel] = {"add_sub": AddSub(), "identity": Identity(), "repeat": Repeat(), "spare": TestModel()}


class Call(NamedTuple):
    """What the front end keeps of a request."""

    id: str


class Results:
    """The responses of one request, as a generation's chunks are read."""

    def __init__(self, results: AsyncIterator[Result]) -> None:
        self._results = results
        self._came: deque[Result | Exception] = deque()
        self._reading: asyncio.Task[None] | None = None
        self._heard: Callable[[], None] = lambda: None

    def listen(self, heard: Callable[[], None]) -> None:
        """Read all of them, and call ``heard`` for each."""
        self._heard = heard
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        final = False
        try:
            async for result in self._results:
                final = result.final
                self._came.append(result)
                self._heard()
        except Exception as error:
            self._came.append(error)
        else:
            self._came += [] if final else [Result({}, final=True)]
        self._heard()

    def take(self) -> Result | None:
        """The next one that has come."""
        came = self._came.popleft() if self._came else None
        if self._came:
            self._heard()
        if isinstance(came, Exception):
            raise came
        return came

    def __aiter__(self) -> AsyncIterator[Result]:
        return self._results

    async def __anext__(self) -> Result:
        return await anext(self._results)

    def cancel(self) -> None:
        """Nothing goes on that nobody reads."""
        if self._reading is not None:
            self._reading.cancel()


class Reply:
    """Writes responses, with the outputs that the request lists if it lists any."""

    def __init__(self, request: pb.ModelInferRequest, version: int) -> None:
        self._head = pb.ModelInferResponse(model_name=request.model_name, model_version=str(version), id=request.id)
        self._listed = {output.name for output in request.outputs}

    def unary(self, result: Result) -> pb.ModelInferResponse:
        response = pb.ModelInferResponse()
        response.CopyFrom(self._head)
        for name, (kind, values) in result.tensors.items():
            if not self._listed or name in self._listed:
                response.outputs.add(name=name, datatype=kind, shape=[len(values)])
                response.raw_output_contents.append(_bytes(kind, values))
        return response

    def streamed(self, result: Result) -> bytes | None:
        if not result.tensors:
            return None
        message = pb.ModelStreamInferResponse(infer_response=self.unary(result))
        message.infer_response.parameters["triton_final_response"].bool_param = result.final
        return message.SerializeToString()


def begin(model: TestModel, request: pb.ModelInferRequest, version: int) -> tuple[Call, Results, Reply]:
    """Read a request as the server reads one. Raises ``OctavoError``."""
    check_id(request.id)
    check_counts(len(request.inputs), len(request.outputs), DEFAULT_LIMITS)
    read_parameters(request.parameters)
    inputs = ModelInputs(request.model_name, model.inputs).read(request)
    check_outputs(request.model_name, request.outputs, model.outputs)
    return Call(request.id), Results(model.results(inputs)), Reply(request, version)


def _bytes(kind: str, values: list[Element]) -> bytes:
    if kind == "BYTES":
        return b"".join(struct.pack("<I", len(value)) + value for value in values)
    return struct.pack(f"<{len(values)}{CODES[kind]}", *values)
