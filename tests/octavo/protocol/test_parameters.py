"""Request parameters and the sampling JSON: Triton's texts for its own keys, vllm_backend's coercions, clean refusals."""

import pytest

from octavo.errors import InvalidRequest, Unsupported
from octavo.protocol.parameters import read_parameters, read_sampling_json
from octavo.protocol.sampling_fields import sampling_params
from octavo.sampling import SamplingParams
from octavo.wire import pb


def parameters(**values) -> dict[str, pb.InferParameter]:
    return {name: pb.InferParameter(**value) for name, value in values.items()}


RESERVED = (
    "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys starting with 'triton_' are "
    "allowed: triton_enable_empty_final_response"
)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("priority", {"string_param": "1"}, "invalid value type for 'priority' parameter, expected int64_param or uint64_param."),
        ("timeout", {"string_param": "1"}, "invalid value type for 'timeout' parameter, expected int64_param."),
        ("timeout", {"uint64_param": 1}, "invalid value type for 'timeout' parameter, expected int64_param."),
        (
            "sequence_id",
            {"bool_param": True},
            "invalid value type for 'sequence_id' parameter, expected int64_param or string_param.",
        ),
        ("sequence_start", {"int64_param": 1}, "invalid value type for 'sequence_start' parameter, expected bool_param."),
        ("u", {"uint64_param": 1}, "invalid value type for 'u' parameter, expected int64_param, bool_param, or string_param."),
        ("empty", {}, "invalid value type for 'empty' parameter, expected int64_param, bool_param, or string_param."),
        ("triton_foo", {"bool_param": True}, RESERVED),
        (
            "triton_enable_empty_final_response",
            {"int64_param": 1},
            "invalid value type for 'triton_enable_empty_final_response' parameter, expected bool_param.",
        ),
    ],
)
def test_a_mistake_reads_as_in_triton(name, value, text):
    with pytest.raises(InvalidRequest) as caught:
        read_parameters(parameters(**{name: value}))
    assert str(caught.value) == text


@pytest.mark.parametrize(("level", "priority"), [(0, 0), (1, -1), (2, 0), (3, 1), (-5, 0)])
def test_level_one_is_served_first_and_zero_is_the_default(level, priority):
    assert read_parameters(parameters(priority={"int64_param": level})).priority == priority


def test_a_level_beyond_any_range_is_just_the_last():
    assert read_parameters(parameters(priority={"uint64_param": 2**64 - 1})).priority == 2**31 - 2


def test_a_timeout_is_in_microseconds_and_zero_is_none():
    assert read_parameters(parameters(timeout={"int64_param": 250_000})).queue_timeout == 0.25
    assert read_parameters(parameters(timeout={"int64_param": 0})).queue_timeout is None


def test_tritons_own_keys_are_no_sampling_options():
    read = read_parameters(
        parameters(
            sequence_id={"string_param": "s"},
            sequence_start={"bool_param": True},
            sequence_end={"bool_param": False},
            priority={"uint64_param": 1},
            timeout={"int64_param": 1},
            headers={"string_param": "h"},
            binary_data_output={"bool_param": True},
            triton_enable_empty_final_response={"bool_param": True},
            cache_salt={"string_param": "mine"},
            temperature={"double_param": 0.5},
            max_tokens={"int64_param": 5},
        )
    )
    assert read.options == {"temperature": 0.5, "max_tokens": 5}
    assert read.cache_salt == "mine"


def test_too_many_parameters_are_refused():
    with pytest.raises(InvalidRequest, match="at most 64 parameters, got 65"):
        read_parameters(parameters(**{f"p{i}": {"int64_param": 1} for i in range(65)}))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"temperature": NaN}', "not valid JSON"),
        (b'{"temperature": Infinity}', "not valid JSON"),
        (b'{"temperature": 1e999}', "not valid JSON"),
        (b'{"stop": "\\ud800"}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a":' * 100_000, "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"{}"', "must be a JSON object"),
        (b" " * 1_048_577, "at most 1048576 bytes, got 1048577"),
    ],
)
def test_json_that_is_no_object_is_refused_in_a_clean_sentence(data, text):
    with pytest.raises(InvalidRequest, match=text) as caught:
        read_sampling_json(data)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, SamplingParams()),
        ({"temperature": "0"}, SamplingParams(temperature=0.0)),
        ({"temperature": 0, "max_tokens": "20", "top_k": 5.0}, SamplingParams(temperature=0.0, max_tokens=20, top_k=5)),
        ({"temperature": None, "max_tokens": None, "structured_outputs": None}, SamplingParams()),
        ({"stop": "END"}, SamplingParams(stop=("END",))),
        ({"stop": ["a", "b"], "stop_token_ids": [1, 2]}, SamplingParams(stop=("a", "b"), stop_token_ids=(1, 2))),
        ({"ignore_eos": "true", "skip_special_tokens": "False"}, SamplingParams(ignore_eos=True, skip_special_tokens=False)),
        ({"ignore_eos": 1}, SamplingParams(ignore_eos=True)),
        ({"logit_bias": {"5": 1, "6": "-0.5"}}, SamplingParams(logit_bias={5: 1.0, 6: -0.5})),
        ({"n": 3, "seed": "7", "logprobs": "2"}, SamplingParams(n=3, seed=7, logprobs=2)),
        ({"best_of": 1, "use_beam_search": False, "bad_words": [], "length_penalty": 1.0}, SamplingParams()),
    ],
)
def test_values_are_coerced_as_vllm_backend_does(options, expected):
    assert sampling_params(options) == expected


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"temperature": True}, "temperature must be a number, got true."),
        ({"temperature": "warm"}, "temperature must be a number, got the string 'warm'."),
        ({"temperature": "nan"}, "temperature must be between 0.0 and 10000.0, got nan."),
        ({"temperature": [1]}, "temperature must be a number, got a list."),
        ({"temperature": "1" * 100}, "temperature must be a number, got a long string."),
        ({"temperature": -1}, "temperature must be between 0.0 and 10000.0, got -1.0."),
        ({"max_tokens": 5.5}, "max_tokens must be an integer, got 5.5."),
        ({"max_tokens": False}, "max_tokens must be an integer, got false."),
        ({"max_tokens": 10**400}, "max_tokens must be an integer of at most 64 bits, got a number out of range."),
        ({"seed": 1e300}, "seed must be an integer of at most 64 bits, got a number out of range."),
        ({"max_tokens": 0}, "max_tokens must be between 1 and 2147483647, got 0."),
        ({"n": {}}, "n must be an integer, got an object."),
        ({"ignore_eos": "perhaps"}, "ignore_eos must be true or false, got the string 'perhaps'."),
        ({"stop": [1]}, "stop must be a string or a list of strings, got a list."),
        ({"stop_token_ids": 5}, "stop_token_ids must be a list of token ids, got 5."),
        ({"stop_token_ids": [1] * 1025}, "stop_token_ids must hold at most 1024 token ids, got 1025."),
        ({"stop_token_ids": [2**40]}, "stop_token_ids must hold token ids of the model's vocabulary."),
        ({"logit_bias": {"x": 1}}, "logit_bias must be an integer, got the string 'x'."),
        ({"logit_bias": []}, "logit_bias must be an object of numbers by token id, got a list."),
        ({"max_token": 5}, "Unknown sampling parameter 'max_token'; did you mean 'max_tokens'?"),
        ({"zzzzzzzz": 5}, "Unknown sampling parameter 'zzzzzzzz'; known ones are those of vLLM's SamplingParams."),
        ({"zzzzzzzz": None}, "Unknown sampling parameter 'zzzzzzzz'; known ones are those of vLLM's SamplingParams."),
    ],
)
def test_values_of_the_wrong_kind_are_refused_by_name(options, text):
    with pytest.raises(InvalidRequest) as caught:
        sampling_params(options)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"allowed_token_ids": [1]}, "The sampling parameter 'allowed_token_ids' is not supported yet; leave it out."),
        ({"best_of": 2}, "The sampling parameter 'best_of' is not supported yet; leave it out."),
        ({"best_of": True}, "The sampling parameter 'best_of' is not supported yet; leave it out."),
        ({"lora_name": "doll"}, "LoRA feature is not enabled."),
    ],
)
def test_what_is_not_served_yet_is_refused_by_name(options, text):
    with pytest.raises(Unsupported) as caught:
        sampling_params(options)
    assert str(caught.value) == text
