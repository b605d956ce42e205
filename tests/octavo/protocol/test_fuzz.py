"""Requests damaged at random: the parser answers or refuses, and never fails in another way. Fixed seeds."""

import random

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from octavo.errors import OctavoError
from octavo.protocol.sampling_fields import sampling_params
from octavo.wire import pb


def survives(model, data: bytes) -> bool:
    """Whether ``data`` is a request at all; raises if reading it fails in a way that is not ours."""
    try:
        request = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        return False
    try:
        model.read(request)
    except OctavoError as error:
        assert str(error)
    return True


def whole_request(ask) -> pb.ModelInferRequest:
    return ask(
        id="id",
        parameters={"temperature": 0.5, "max_tokens": 3, "stop": "x", "ignore_eos": True, "priority": 1, "timeout": 5},
        outputs=["text_output", "logprobs"],
        stream=True,
        return_logprobs=True,
        sampling_parameters='{"top_k": 3, "stop": ["a", "b"], "logit_bias": {"1": 2}}',
    )


def damaged(draw: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.randrange(1, 3)):
        place = draw.randrange(len(changed) + 1)
        match draw.choice((0, 0, 0, 1, 2, 3)):
            case 0:
                changed[place : place + 1] = bytes([draw.randrange(256)])
            case 1:
                del changed[place : place + draw.randrange(1, 4)]
            case 2:
                changed[place:place] = draw.randbytes(draw.randrange(1, 5))
            case _:
                length = draw.randrange(1, 20)
                changed[place:place] = changed[draw.randrange(len(changed) + 1) :][:length]
        changed = changed or bytearray(b"\0")
    return bytes(changed)


@pytest.mark.parametrize("start", range(4))
def test_damaged_bytes_never_break_the_parser(model, ask, start):
    draw, data = random.Random(start), whole_request(ask).SerializeToString(deterministic=True)
    assert survives(model, data)
    assert sum(survives(model, damaged(draw, data)) for _ in range(3000)) > 200


names = st.sampled_from(
    [
        "text_input",
        "stream",
        "sampling_parameters",
        "return_logprobs",
        "messages",
        "input_ids",
        "input_lengths",
        "stop",
        "streaming",
        "max_tokens",
        "stop_words",
        "end_id",
        "temperature",
        "x",
    ]
)
datatypes = st.sampled_from(["BYTES", "BOOL", "FP32", "FP16", "INT8", "INT32", "INT64", "", "?"])
dims = st.lists(st.sampled_from([-(2**63), -1, 0, 1, 2, 2**40, 2**63 - 1]), max_size=4)
contents = st.builds(
    pb.InferTensorContents,
    bool_contents=st.lists(st.booleans(), max_size=2),
    bytes_contents=st.lists(st.binary(max_size=4), max_size=2),
    int_contents=st.lists(st.integers(-5, 5), max_size=2),
    fp32_contents=st.lists(st.floats(width=32), max_size=2),
)
inputs = st.builds(pb.ModelInferRequest.InferInputTensor, name=names, datatype=datatypes, shape=dims, contents=st.none() | contents)
raw = st.lists(
    st.sampled_from([b"", b"\0", b"\1", b"\2\0\0\0hi", b"\2\0\0\0{}", b"\xff\xff\xff\xff", b"\4\0\0\0\xff\xfe\xfd\xfc"]), max_size=4
)
values = st.builds(pb.InferParameter) | st.one_of(
    st.builds(pb.InferParameter, bool_param=st.booleans()),
    st.builds(pb.InferParameter, int64_param=st.integers(-(2**63), 2**63 - 1)),
    st.builds(pb.InferParameter, uint64_param=st.integers(0, 2**64 - 1)),
    st.builds(pb.InferParameter, double_param=st.floats()),
    st.builds(pb.InferParameter, string_param=st.text(max_size=5)),
)
keys = st.sampled_from(
    ["temperature", "n", "stop", "seed", "logit_bias", "priority", "timeout", "triton_x", "cache_salt", "headers"]
)


@seed(5)
@settings(max_examples=300, deadline=None)
@given(st.lists(inputs, max_size=4), raw, st.dictionaries(keys | st.text(max_size=3), values, max_size=4))
def test_any_message_is_read_or_refused(model, tensors, data, parameters):
    request = pb.ModelInferRequest(inputs=tensors, raw_input_contents=data, parameters=parameters)
    assert survives(model, request.SerializeToString())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["0", "1e400", "true", "-1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from(
    ["n", "temperature", "top_k", "top_p", "seed", "stop", "stop_token_ids", "logit_bias", "max_tokens", "best_of"]
)


@seed(6)
@settings(max_examples=400, deadline=None)
@given(st.dictionaries(fields | st.text(max_size=12), json_values, max_size=4))
def test_any_option_is_taken_or_refused(options):
    try:
        sampling_params(options)
    except OctavoError as error:
        assert len(str(error)) < 2000
