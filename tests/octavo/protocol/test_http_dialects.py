"""The HTTP dialects without a server: any bytes at all are a request or refused, and what was written can be read."""

import contextlib
import json
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import InvalidRequest, OctavoError
from octavo.protocol.generate import read_generate, write_generate
from octavo.protocol.json_body import as_json
from octavo.protocol.json_tensors import elements, packed, unpacked
from octavo.protocol.rest import Binary, header_length, read_infer, write_infer
from octavo.wire import mc, pb

STRING, FLAG = mc.TYPE_STRING, mc.TYPE_BOOL
CONFIG = mc.ModelConfig(
    name="m",
    input=[
        mc.ModelInput(name="text_input", data_type=STRING, dims=[1]),
        mc.ModelInput(name="stream", data_type=FLAG, dims=[1], optional=True),
        mc.ModelInput(name="grid", data_type=mc.TYPE_INT32, dims=[-1, 2, -1], optional=True),
        mc.ModelInput(name="sampling_parameters", data_type=STRING, dims=[1], optional=True),
    ],
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = [
    "inputs",
    "outputs",
    "id",
    "parameters",
    "name",
    "datatype",
    "shape",
    "data",
    "binary_data_size",
    "text_input",
    "stop",
    "grid",
]
NAMED = st.recursive(
    JSON | st.sampled_from(["BYTES", "INT32", "FP32", "BOOL", [1], [2, 1], {"binary_data_size": 3}, {"binary_data_output": True}]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=20,
)


def infer(body: bytes, length: int | None = None) -> pb.ModelInferRequest:
    return read_infer(body, len(body) if length is None else length, "m", "", 4)[0]


@given(st.binary(max_size=64) | NAMED.map(lambda value: json.dumps(value).encode()), st.integers(0, 64))
def test_any_body_is_read_or_refused(body: bytes, length: int) -> None:
    for read in (infer, lambda b: infer(b, min(length, len(b))), lambda b: read_generate(b, CONFIG, "")):
        try:
            read(body).SerializeToString() if read is infer else read(body)
        except OctavoError as error:
            str(error).encode()
            assert len(str(error)) < 1000


@given(st.text(max_size=30))
def test_any_header_value_is_a_length_or_refused(value: str) -> None:
    with contextlib.suppress(InvalidRequest):
        assert 0 <= header_length(value, 10) <= 10


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("BOOL", [True, False]),
        ("UINT8", [0, 255]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("UINT64", [2**64 - 1]),
        ("FP32", [0.5, -2.0, 3.0]),
        ("FP64", [1e300]),
        ("BYTES", ["", "a", "é\u20ac\U0001f600"]),
    ],
)
def test_values_survive_the_way_there_and_back(datatype: str, values: list[object]) -> None:
    for text in (json.dumps(values), json.dumps([[value] for value in values]), f" [ {json.dumps(values)}]"):
        assert unpacked(datatype, packed("x", datatype, elements("x", datatype, msgspec.Raw(text.encode())))) == values


@pytest.mark.parametrize(("count", "shape"), [(2, [1, 2, 1]), (6, [1, 2, 3]), (0, [1, 2, 0])])
def test_a_free_dimension_takes_what_is_left(count: int, shape: list[int]) -> None:
    body = json.dumps({"text_input": "a", "grid": list(range(count))}).encode()
    request = read_generate(body, CONFIG, "").request
    assert list(request.inputs[1].shape) == shape
    assert request.raw_input_contents[1] == struct.pack(f"<{count}i", *range(count))


def test_a_number_of_elements_that_does_not_fit() -> None:
    with pytest.raises(InvalidRequest, match="The schema can not convert input 'grid' to tensor with proper shape"):
        read_generate(b'{"text_input": "a", "grid": [1, 2, 3]}', CONFIG, "")


def test_sampling_options_meet_in_one_tensor() -> None:
    body = {"text_input": "a", "temperature": 0.5, "stop": ["x"], "sampling_parameters": {"logit_bias": {"1": 2}}}
    request = read_generate(json.dumps(body).encode(), CONFIG, "").request
    assert json.loads(request.raw_input_contents[1][4:]) == {"stop": ["x"], "logit_bias": {"1": 2}}
    assert request.parameters["temperature"].double_param == 0.5


def test_replies_as_json_and_as_bytes() -> None:
    response = pb.ModelInferResponse(model_name="m", model_version="1", id="i")
    for name, datatype, data in (("b", "BYTES", packed("", "BYTES", ["x", "y"])), ("a", "FP32", struct.pack("<f", 0.5))):
        response.outputs.add(name=name, datatype=datatype, shape=[2 if datatype == "BYTES" else 1])
        response.raw_output_contents.append(data)
    body, length = write_infer(response, Binary(default=False, outputs={"a": True}))
    assert body[length:] == struct.pack("<f", 0.5)
    assert json.loads(body[:length]) == {
        "id": "i",
        "model_name": "m",
        "model_version": "1",
        "outputs": [
            {"name": "b", "datatype": "BYTES", "shape": [2], "data": ["x", "y"]},
            {"name": "a", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}},
        ],
    }
    assert write_generate(response) == {"a": 0.5, "b": ["x", "y"], "id": "i", "model_name": "m", "model_version": "1"}


def test_messages_as_triton_writes_them() -> None:
    config = mc.ModelConfig(name="m", max_batch_size=0, parameters={"k": mc.ModelParameter(string_value="v")})
    config.input.add(name="x", data_type=mc.TYPE_INT32, dims=[-1, 4])
    config.version_policy.latest.num_versions = 1
    written = as_json(config)
    assert written["parameters"] == {"k": {"string_value": "v"}}
    assert (written["input"][0]["dims"], written["input"][0]["data_type"]) == ([-1, 4], "TYPE_INT32")
    assert written["version_policy"] == {"latest": {"num_versions": 1}}
    assert "dynamic_batching" not in written
    assert written["max_batch_size"] == 0
