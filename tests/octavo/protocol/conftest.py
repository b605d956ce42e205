"""A text model as the repository completes it, and requests for it as clients write them."""

import struct

import pytest

from octavo.protocol.triton import TritonModel
from octavo.repository.tensors import INPUTS, OUTPUTS
from octavo.wire import mc, pb


@pytest.fixture(scope="session")
def config() -> mc.ModelConfig:
    return mc.ModelConfig(name="llm_stream", backend="octavo", input=INPUTS, output=OUTPUTS)


@pytest.fixture(scope="session")
def model(config) -> TritonModel:
    return TritonModel(config, 1)


def raw_string(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


@pytest.fixture
def ask():
    """Build a request: tensors by name (str or bytes: BYTES, bool: BOOL), ``parameters`` by name, ``outputs``, ``id``."""

    def build(id="", parameters=None, outputs=(), text_input="hi", **tensors) -> pb.ModelInferRequest:
        request = pb.ModelInferRequest(model_name="llm_stream", id=id)
        for name, value in {"text_input": text_input, **tensors}.items():
            if value is None:
                continue
            is_flag = isinstance(value, bool)
            request.inputs.add(name=name, datatype="BOOL" if is_flag else "BYTES", shape=[1])
            data = value.encode() if isinstance(value, str) else value
            request.raw_input_contents.append(bytes([value]) if is_flag else raw_string(data))
        for name, value in (parameters or {}).items():
            kind = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}[type(value)]
            setattr(request.parameters[name], kind, value)
        for name in outputs:
            request.outputs.add(name=name)
        return request

    return build
