"""Unary inference: what a request may say, and every way in which it can be wrong."""

from functools import partial
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from conformance.cases import Case
from conformance.cases.core import BAD_VERSIONS
from conformance.client import SERVICE, Client, Tensor, infer

IN0 = Tensor("INPUT0", "FP32", [4], [1.0, 2.0, 3.0, 4.0])
IN1 = Tensor("INPUT1", "FP32", [4], [0.5, 0.5, 0.5, 0.5])
add = partial(infer, "add_sub", IN0)
both = partial(infer, "add_sub", IN0, IN1)
# One value of each type that is not its default, and the widest.
IDENTITY: dict[str, list[Any]] = {
    "BOOL": [True, False], "UINT8": [1, 255], "UINT16": [1, 65535], "UINT32": [1, 2**32 - 1], "UINT64": [1, 2**64 - 1],
    "INT8": [-1, 127], "INT16": [-1, 32767], "INT32": [-1, 2**31 - 1], "INT64": [-1, 2**63 - 1], "FP32": [0.5, -2.0],
    "FP64": [0.1, 1e300], "BYTES": [b"", "octavo ☃".encode()],
}  # fmt: skip


def _text(raw: bytes, count: int = 1) -> pb.ModelInferRequest:
    return infer("identity", Tensor("IN_BYTES", "BYTES", [count], [], raw))


def _changed(request: pb.ModelInferRequest, **fields: Any) -> pb.ModelInferRequest:
    """The request with fields of its second input set."""
    for name, value in fields.items():
        if name == "shape":
            request.inputs[1].shape[:] = value
        else:
            setattr(request.inputs[1], name, value)
    return request


def _raw(request: pb.ModelInferRequest, *raw: bytes) -> pb.ModelInferRequest:
    request.raw_input_contents[:] = raw
    return request


def _typed(datatype: str, field: str, values: list[Any]) -> pb.ModelInferRequest:
    """An INPUT1 of ``datatype`` with values in ``field``."""
    request = both(typed=True)
    request.inputs[1].datatype = datatype
    request.inputs[1].ClearField("contents")
    getattr(request.inputs[1].contents, field).extend(values)
    return request


def _with_region(request: pb.ModelInferRequest, on_output: bool) -> pb.ModelInferRequest:
    tensor = request.outputs.add(name="OUTPUT0") if on_output else request.inputs[0]
    tensor.parameters["shared_memory_region"].string_param = "nope"
    tensor.parameters["shared_memory_byte_size"].int64_param = 16
    return request


def _classification() -> pb.ModelInferRequest:
    request = both()
    request.outputs.add(name="OUTPUT0").parameters["classification"].int64_param = 2
    return request


def _both_kinds() -> pb.ModelInferRequest:
    request = both(typed=True)
    request.raw_input_contents.extend([IN0.data(), IN1.data()])
    return request


sixteen = b"\0" * 16
REQUESTS: dict[str, pb.ModelInferRequest] = {
    "raw, with an id": both(id="request 1"),
    "typed": both(typed=True),
    "version 1": both(version="1"),
    "all outputs named": both(outputs=["OUTPUT1", "OUTPUT0"]),
    "one output": both(outputs=["OUTPUT1"]),
    "an output twice": both(outputs=["OUTPUT0", "OUTPUT0"]),
    "an unknown output": both(outputs=["nope"]),
    "an unknown model": infer("nope", IN0),
    "no model": infer("", IN0),
    "an unloaded model": infer("spare", IN0),
    **{f"version '{version}'": both(version=version) for version in ("0", *BAD_VERSIONS)},
    "no inputs": infer("add_sub"),
    "no inputs, with an id": infer("add_sub", id="request 2"),
    "a missing input": add(),
    "an unknown input": add(IN1._replace(name="nope")),
    "an extra input": both(IN1._replace(name="nope")),
    "an input twice": add(IN0),
    "a short dimension": add(Tensor("INPUT1", "FP32", [3], [1.0] * 3)),
    "a long dimension": add(Tensor("INPUT1", "FP32", [5], [1.0] * 5), id="request 3"),
    "a dimension too many": add(Tensor("INPUT1", "FP32", [2, 4], [1.0] * 8)),
    "a batch dimension of one": add(Tensor("INPUT1", "FP32", [1, 4], [1.0] * 4)),
    "no shape": add(Tensor("INPUT1", "FP32", [], [1.0])),
    "a dimension of zero": add(Tensor("INPUT1", "FP32", [0], [])),
    "a negative dimension": add(Tensor("INPUT1", "FP32", [-1], [1.0] * 4)),
    "the wrong type": add(Tensor("INPUT1", "INT32", [4], [1] * 4), id="request 4"),
    "an unknown type": _changed(both(), datatype="nope"),
    "no type": _changed(both(), datatype=""),
    "the wrong type and shape": _changed(both(), datatype="INT64", shape=[2]),
    "raw too short": _raw(both(), sixteen, b"\0" * 8),
    "raw too long": _raw(both(), sixteen, b"\0" * 24),
    "raw empty": _raw(both(), sixteen, b""),
    "too few raw": _raw(both(), sixteen),
    "no raw": _raw(both()),
    "too many raw": _raw(both(), sixteen, sixteen, sixteen),
    "typed too short": _typed("FP32", "fp32_contents", [1.0, 2.0]),
    "typed too long": _typed("FP32", "fp32_contents", [1.0] * 6),
    "typed in the wrong field": _typed("FP32", "int_contents", [1] * 4),
    "typed of the wrong type": _typed("INT32", "int_contents", [1] * 4),
    "typed of an unknown type": _typed("nope", "int_contents", [1] * 4),
    "raw and typed": _both_kinds(),
    "a priority": both(priority=1),
    "a priority of the wrong type": both(priority="1"),
    "a timeout": both(timeout=10**9),
    "a timeout of the wrong type": both(timeout="1"),
    "a sequence": both(sequence_id=42, sequence_start=True, sequence_end=True),
    "a sequence by name": both(sequence_id="a"),
    "a sequence of the wrong type": both(sequence_id=True),
    "a sequence start of the wrong type": both(sequence_start=1),
    "a sequence end of the wrong type": both(sequence_end="true"),
    "custom parameters": both(a="text", b=True, c=3, d=0.5),
    "an unsigned parameter": both(u=pb.InferParameter(uint64_param=1)),
    "a parameter without a value": both(empty=pb.InferParameter()),
    "a reserved parameter": both(triton_nope=1),
    "an empty final response": both(triton_enable_empty_final_response=True),
    "an empty final response of the wrong type": both(triton_enable_empty_final_response=1),
    "binary data": both(binary_data_output=True),
    "classification": _classification(),
    "an input of an unknown region": _with_region(both(), on_output=False),
    "an output to an unknown region": _with_region(both(), on_output=True),
    **{f"identity {kind} raw": infer("identity", Tensor(f"IN_{kind}", kind, [2], IDENTITY[kind])) for kind in IDENTITY},
    **{f"identity {kind} typed": infer("identity", Tensor(f"IN_{kind}", kind, [2], v), typed=True) for kind, v in IDENTITY.items()},
    "a tensor of nothing": infer("identity", Tensor("IN_INT32", "INT32", [0], [])),
    "strings of nothing": infer("identity", Tensor("IN_BYTES", "BYTES", [0], [])),
    "a huge dimension": infer("identity", Tensor("IN_INT32", "INT32", [2**40], [1])),
    "a string's length cut": _text(b"\x05\0"),
    "a string cut": _text(b"\x05\0\0\0he"),
    "a string too many": _text(b"\x01\0\0\0a\x01\0\0\0b"),
    "a string too few": _text(b"\x01\0\0\0a", 2),
    "no string": _text(b""),
    "typed strings too few": infer("identity", Tensor("IN_BYTES", "BYTES", [2], [b"a"]), typed=True),
    "typed strings too many": infer("identity", Tensor("IN_BYTES", "BYTES", [1], [b"a", b"b"]), typed=True),
    "a decoupled model": infer("repeat", Tensor("IN", "INT32", [1], [7])),
    "a decoupled model, wrongly asked": infer("repeat", Tensor("IN", "INT32", [1], [7], b"")),
    "a language model": infer("llm", Tensor("text_input", "BYTES", [1], [b"hello"])),
    "a language model, no prompt": infer("llm"),
}

CASES: dict[str, Case] = {
    **{f"infer: {name}": partial(Client.call, rpc="ModelInfer", request=request) for name, request in REQUESTS.items()},
    "infer: compressed": lambda client: client.unary(
        SERVICE + "ModelInfer",
        both().SerializeToString(),
        lambda data: len(pb.ModelInferResponse.FromString(data).outputs),
        compressed=True,
    ),
}
