"""``config.pbtxt``: what is filled in, what is accepted, and the sentences for what cannot be served."""

import json

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.errors import LoadFailed, NotFound, OctavoError
from octavo.repository.config_pbtxt import complete_config, parse_config, parse_config_json
from octavo.wire import mc

# As users of vllm_backend have it: the sample of its repository, and one that lists tensors itself.
SAMPLE = 'backend: "vllm"\ninstance_group [ { count: 1 kind: KIND_MODEL } ]'
WITH_TENSORS = """
name: "m"  backend: "vllm"  max_batch_size: 0
model_transaction_policy { decoupled: True }
input [
  { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "stream" data_type: TYPE_BOOL dims: [ 1 ] },
  { name: "sampling_parameters" data_type: TYPE_STRING dims: [ 1 ] optional: true }
]
output [ { name: "text_output" data_type: TYPE_STRING dims: [ -1 ] } ]
parameters: { key: "REPORT_CUSTOM_METRICS" value: { string_value: "true" } }
"""


def completed(text: str = "") -> mc.ModelConfig:
    return complete_config(parse_config(text, "m"), "m")


def test_an_empty_configuration_is_completed_as_triton_does() -> None:
    config = completed()
    assert (config.name, config.backend, config.max_batch_size) == ("m", "octavo", 0)
    assert config.version_policy.latest.num_versions == 1
    assert config.model_transaction_policy.decoupled
    assert config.optimization.input_pinned_memory.enable and config.optimization.output_pinned_memory.enable
    (group,) = config.instance_group
    assert (group.name, group.count, group.kind) == ("m_0", 1, mc.ModelInstanceGroup.KIND_MODEL)


def test_the_tensors_are_vllm_backends_and_then_our_own() -> None:
    config = completed()
    inputs = {i.name: (mc.DataType.Name(i.data_type), list(i.dims), i.optional) for i in config.input}
    flag = ("TYPE_BOOL", [1], True)
    assert inputs == {
        "text_input": ("TYPE_STRING", [1], False),
        "stream": flag,
        "sampling_parameters": ("TYPE_STRING", [1], True),
        "exclude_input_in_output": flag,
        "return_finish_reason": flag,
        "return_cumulative_logprob": flag,
        "return_logprobs": flag,
        "return_num_input_tokens": flag,
        "return_num_output_tokens": flag,
        "messages": ("TYPE_STRING", [1], True),
        "input_ids": ("TYPE_INT32", [-1], True),
        "return_token_ids": flag,
    }
    assert {o.name: (mc.DataType.Name(o.data_type), list(o.dims)) for o in config.output} == {
        "text_output": ("TYPE_STRING", [-1]),
        "finish_reason": ("TYPE_STRING", [-1]),
        "cumulative_logprob": ("TYPE_FP32", [-1]),
        "logprobs": ("TYPE_STRING", [-1]),
        "num_input_tokens": ("TYPE_UINT32", [1]),
        "num_output_tokens": ("TYPE_UINT32", [-1]),
        "token_ids": ("TYPE_INT32", [-1]),
    }


@pytest.mark.parametrize("text", [SAMPLE, WITH_TENSORS])
def test_vllm_backends_files_are_served(text: str) -> None:
    config = completed(text)
    assert config.backend == "vllm"
    assert (len(config.input), len(config.output)) == (12, 7)


def test_what_is_given_stays() -> None:
    config = completed('version_policy { all {} } instance_group { name: "g" kind: KIND_CPU } metric_tags { key: "a" value: "b" }')
    assert config.version_policy.WhichOneof("policy_choice") == "all"
    assert (config.instance_group[0].name, config.instance_group[0].kind) == ("g", mc.ModelInstanceGroup.KIND_CPU)
    assert dict(config.metric_tags) == {"a": "b"}


def test_completing_twice_changes_nothing() -> None:
    assert completed(text_format.MessageToString(completed(SAMPLE))) == completed(SAMPLE)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('backend: "python"', "names backend 'python'; it must be 'octavo' or 'vllm'"),
        ("max_batch_size: 4", "max_batch_size of model 'm' must be 0, .* got 4"),
        ("model_transaction_policy { decoupled: false }", "must be decoupled"),
        ('name: "other"', "unexpected directory name 'm' for model 'other', directory name must equal model name"),
        ("response_cache { enable: true }", "response_cache"),
        ("dynamic_batching { }", "dynamic_batching of model 'm' is not supported: the engine forms its own batches"),
        ("sequence_batching { }", "sequence_batching"),
        ("ensemble_scheduling { }", "ensemble_scheduling"),
        ('model_warmup { name: "w" }', "model_warmup"),
        ('model_operations { op_library_filename: "x.so" }', "ever loaded as code"),
        ('model_repository_agents { agents { name: "checksum" } }', "ever loaded as code"),
        ('platform: "onnxruntime_onnx"', "platform"),
        ('input { name: "image" data_type: TYPE_STRING dims: -1 }', "declares input 'image', which is not served"),
        ('input { name: "stream" data_type: TYPE_STRING dims: 1 }', r"'stream' as TYPE_STRING \[1\]; it is TYPE_BOOL \[1\]"),
        ('input { name: "text_input" data_type: TYPE_STRING dims: -1 }', r"'text_input' as TYPE_STRING \[-1\]"),
        ('output { name: "text" data_type: TYPE_STRING dims: -1 }', "declares output 'text'"),
    ],
)
def test_what_cannot_be_served_is_named(text: str, says: str) -> None:
    with pytest.raises(LoadFailed, match=says):
        completed(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\nfoo: 1", 'at line 2, column 1: Message type "inference.ModelConfig" has no field named "foo'),
        ("max_batch_size: x", "at line 1"),
        ("input {", "at line 1"),
        ('name: "a" name: "b"', "at line 1"),
    ],
)
def test_text_that_does_not_parse(text: str, says: str) -> None:
    with pytest.raises(LoadFailed, match=f"^The configuration of model 'm' does not parse {says}.*[^.]\\.$"):
        parse_config(text, "m")


@pytest.mark.parametrize("key", ["max_batch_size", "maxBatchSize"])
def test_json_takes_both_spellings(key: str) -> None:
    assert parse_config_json(f'{{"{key}": 3}}', "m").max_batch_size == 3


@pytest.mark.parametrize("text", ["", "{", "[]", '{"foo": 1}', '{"max_batch_size": "x"}', '{"a":' * 100_000, '{"\\ud800": 1}'])
def test_json_that_is_no_configuration_gets_tritons_text(text: str) -> None:
    with pytest.raises(NotFound, match=r"^failed to load 'm', failed to poll from model repository$"):
        parse_config_json(text, "m")


FIELDS = [field.name for field in mc.ModelConfig.DESCRIPTOR.fields] + ["kind", "count", "gpus", "key", "value", "dims", "@type"]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["KIND_CPU", "1"])
OBJECTS = st.dictionaries(st.sampled_from(FIELDS), LEAVES, max_size=3)
VALUES = st.recursive(LEAVES | OBJECTS, lambda inner: st.lists(inner, max_size=3), max_leaves=6)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3))
def test_any_json_is_completed_or_refused_in_words(value: dict) -> None:
    try:
        complete_config(parse_config_json(json.dumps(value), "m"), "m")
    except OctavoError as error:
        assert str(error)
