"""Malformed tensors get the texts that a real Triton 2.51 gave for the same mistakes, before anything is allocated."""

import struct

import pytest

from octavo.errors import InvalidRequest, NotFound
from octavo.protocol.rejection import RejectedRequest
from octavo.protocol.tensors import Inputs, TensorSpec, check_outputs
from octavo.wire import pb

ADD_SUB = Inputs("add_sub", {name: TensorSpec("FP32", (4,), optional=False) for name in ("INPUT0", "INPUT1")})
FOUR = struct.pack("<4f", 1, 2, 3, 4)


def add_sub(*inputs, raw=(FOUR, FOUR), id="") -> pb.ModelInferRequest:
    """A request of inputs given as dicts; by default two good ones."""
    given = inputs or ({}, {})
    request = pb.ModelInferRequest(model_name="add_sub", id=id, raw_input_contents=raw)
    for place, fields in enumerate(given):
        request.inputs.add(**({"name": f"INPUT{place}", "datatype": "FP32", "shape": [1, 4]} | fields))
    return request


def typed(**fields) -> pb.InferTensorContents:
    return pb.InferTensorContents(**fields)


def refusal(request: pb.ModelInferRequest) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        ADD_SUB.read(request)
    return caught.value


def test_raw_and_typed_contents_read_alike():
    contents = typed(fp32_contents=[1, 2, 3, 4])
    assert ADD_SUB.read(add_sub())["INPUT1"] == [1.0, 2.0, 3.0, 4.0]
    assert ADD_SUB.read(add_sub({"contents": contents}, {"contents": contents}, raw=()))["INPUT1"] == [
        1,
        2,
        3,
        4,
    ]


def test_a_batch_dimension_of_one_may_be_there_or_not():
    assert ADD_SUB.read(add_sub({"shape": [4]}, {"shape": [1, 4]}))["INPUT0"] == [1.0, 2.0, 3.0, 4.0]


def test_extra_raw_entries_are_ignored():
    assert set(ADD_SUB.read(add_sub(raw=(FOUR, FOUR, b"junk")))) == {"INPUT0", "INPUT1"}


UNKNOWN = "[request id: <id_unknown>] "
CASES = {
    "no inputs": (
        pb.ModelInferRequest(),
        UNKNOWN + "expected 2 inputs but got 0 inputs for model 'add_sub'. Got input(s) [], but missing required input(s) "
        "['INPUT0','INPUT1']. Please provide all required input(s).",
    ),
    "missing input": (
        add_sub({}),
        UNKNOWN + "expected 2 inputs but got 1 inputs for model 'add_sub'. Got input(s) ['INPUT0'], but missing required input(s) "
        "['INPUT1']. Please provide all required input(s).",
    ),
    "extra input": (
        add_sub({"name": "FOO"}, {"name": "INPUT1"}, {"name": "INPUT0"}, raw=(FOUR, FOUR, FOUR)),
        UNKNOWN + "expected 2 inputs but got 3 inputs for model 'add_sub'. Got input(s) ['FOO','INPUT1','INPUT0'], but missing "
        "required input(s) ]. Please provide all required input(s).",
    ),
    "unknown input": (add_sub({}, {"name": "FOO"}), "unexpected inference input 'FOO' for model 'add_sub'"),
    "repeated input": (add_sub({}, {"name": "INPUT0"}), UNKNOWN + "input 'INPUT0' already exists in request"),
    "wrong dtype": (
        add_sub({}, {"datatype": "INT32"}),
        UNKNOWN + "inference input 'INPUT1' data-type is 'INT32', but model 'add_sub' expects 'FP32'",
    ),
    "unknown dtype": (
        add_sub({}, {"datatype": "FLOAT"}),
        UNKNOWN + "inference input 'INPUT1' data-type is '<invalid>', but model 'add_sub' expects 'FP32'",
    ),
    "empty dtype": (
        add_sub({}, {"datatype": ""}),
        UNKNOWN + "inference input 'INPUT1' data-type is '<invalid>', but model 'add_sub' expects 'FP32'",
    ),
    "raw too short": (
        add_sub(raw=(FOUR, FOUR[:8])),
        UNKNOWN + "input byte size mismatch for input 'INPUT1' for model 'add_sub'. Expected 16, got 8",
    ),
    "raw too long": (
        add_sub(raw=(FOUR, FOUR + FOUR[:8]), id="s"),
        "[request id: s] input byte size mismatch for input 'INPUT1' for model 'add_sub'. Expected 16, got 24",
    ),
    "typed too short": (
        add_sub({"contents": typed(fp32_contents=[1] * 4)}, {"contents": typed(fp32_contents=[1, 2])}, raw=()),
        UNKNOWN + "input byte size mismatch for input 'INPUT1' for model 'add_sub'. Expected 16, got 8",
    ),
    "raw and typed": (
        add_sub({"contents": typed(fp32_contents=[1] * 4)}, {}),
        "contents field must not be specified when using raw_input_contents for 'INPUT0' for model 'add_sub'",
    ),
    "fewer raw than inputs": (
        add_sub(raw=(FOUR,)),
        "unable to find data for input tensor 'INPUT1' for model 'add_sub' in request.",
    ),
    "wrong typed field": (
        add_sub({"contents": typed(int_contents=[1] * 4)}, {"contents": typed(fp32_contents=[1] * 4)}, raw=()),
        "unexpected explicit tensor data for input tensor 'INPUT0' for model 'add_sub' of type 'INT32', expected datatype 'FP32'",
    ),
    "wrong shape": (
        add_sub({}, {"shape": [1, 3]}, id="s"),
        "[request id: s] unexpected shape for input 'INPUT1' for model 'add_sub'. Expected [4], got [1,3]. ",
    ),
    "negative dimension": (
        add_sub({}, {"shape": [-1]}),
        UNKNOWN + "All input dimensions should be specified for input 'INPUT1' for model 'add_sub', got [-1]",
    ),
    "product beyond 64 bits": (
        add_sub({}, {"shape": [2**62, 2**62]}),
        UNKNOWN + f"unexpected shape for input 'INPUT1' for model 'add_sub'. Expected [4], got [{2**62},{2**62}]. ",
    ),
    "a thousand dimensions": (
        add_sub({}, {"shape": [1] * 1000}),
        UNKNOWN + "unexpected shape for input 'INPUT1' for model 'add_sub'. Expected [4], got [1,1,1,1,1,1,1,1,...]. ",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_reads_as_in_triton(name):
    request, text = CASES[name]
    error = refusal(request)
    assert str(error) == text
    assert isinstance(error, RejectedRequest)


STRING = Inputs("llm_stream", {"text_input": TensorSpec("BYTES", (1,), optional=False)})


@pytest.mark.parametrize(
    ("raw", "rejected", "text"),
    [
        (
            b"\x05\0\0\0ab",
            False,
            "incomplete string data for inference input 'text_input', expecting string of length 5 but only 2 bytes available",
        ),
        (
            b"\x05\0",
            True,
            UNKNOWN
            + "incomplete string length indicator for inference input 'text_input' for model 'llm_stream', expecting 4 bytes "
            "but only 2 bytes available. Please make sure the string length indicator is in one buffer.",
        ),
        (
            b"\xff\xff\xff\xff",
            False,
            "incomplete string data for inference input 'text_input', expecting string of length 4294967295 "
            "but only 0 bytes available",
        ),
        (b"", True, UNKNOWN + "expected 1 string elements for inference input 'text_input' for model 'llm_stream', got 0"),
        (
            b"\0\0\0\0\x01\0\0\0a",
            True,
            UNKNOWN + "unexpected number of string elements 2 for inference input 'text_input' for model 'llm_stream', expecting 1",
        ),
    ],
)
def test_damaged_strings_read_as_in_triton(raw, rejected, text):
    request = pb.ModelInferRequest(raw_input_contents=[raw])
    request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    with pytest.raises(InvalidRequest) as caught:
        STRING.read(request)
    assert str(caught.value) == text
    assert isinstance(caught.value, RejectedRequest) is rejected


@pytest.mark.parametrize("count", [0, 2])
def test_typed_strings_are_counted(count):
    request = pb.ModelInferRequest()
    request.inputs.add(name="text_input", datatype="BYTES", shape=[1], contents=typed(bytes_contents=[b"a"] * count))
    with pytest.raises(InvalidRequest, match="for inference input 'text_input'"):
        STRING.read(request)


def test_shared_memory_regions_are_never_there():
    request = add_sub({"parameters": {"shared_memory_region": pb.InferParameter(string_param="zz")}}, {})
    with pytest.raises(NotFound, match="Unable to find shared memory region: 'zz'"):
        ADD_SUB.read(request)


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ({"name": "NOPE"}, "unexpected inference output 'NOPE' for model 'add_sub'"),
        (
            {"name": "text", "parameters": {"classification": pb.InferParameter(int64_param=2)}},
            "class result not available for output due to unsupported type 'BYTES'",
        ),
        (
            {"name": "text", "parameters": {"shared_memory_region": pb.InferParameter(string_param="zz")}},
            "Unable to find shared memory region: 'zz'",
        ),
    ],
)
def test_outputs_that_cannot_be_returned_are_refused(output, text):
    outputs = [pb.ModelInferRequest.InferRequestedOutputTensor(**output)]
    with pytest.raises((InvalidRequest, NotFound)) as caught:
        check_outputs("add_sub", outputs, {"text": "BYTES"})
    assert str(caught.value) == text


def test_a_text_does_not_grow_with_the_request():
    long = "x" * 1_000_000
    assert len(str(refusal(add_sub({}, {"name": long})))) < 400
    assert len(str(refusal(add_sub({}, {"datatype": long}, id=long)))) < 400
