"""``model.json`` -> ``ModelSettings``: coercions, ranges and the sentences for what is wrong."""

import json

import pytest

from octavo.errors import LoadFailed
from octavo.repository.settings import LoadFormat, ModelSettings, parse_settings


def parse(**settings: object) -> ModelSettings:
    return parse_settings(json.dumps({"model": "x", **settings}), "m")


def test_defaults_and_nulls_are_the_same() -> None:
    assert parse(max_num_seqs=None, seed=None, dtype=None) == parse() == ModelSettings(model="x")


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        ({"dtype": "half"}, "dtype", "float16"),
        ({"dtype": "float"}, "dtype", "float32"),
        ({"dtype": "auto"}, "dtype", None),
        ({"dtype": "bfloat16"}, "dtype", "bfloat16"),
        ({"max_model_len": -1}, "max_model_len", None),
        ({"max_model_len": "2048"}, "max_model_len", 2048),
        ({"block_size": "32"}, "block_size", 32),
        ({"enable_prefix_caching": "false"}, "enable_prefix_caching", False),
        ({"gpu_memory_utilization": "0.5"}, "gpu_memory_utilization", 0.5),
        ({"load_format": "gguf"}, "load_format", LoadFormat.GGUF),
        ({"hf_overrides": {"rope_theta": 1e6}}, "hf_overrides", {"rope_theta": 1e6}),
        ({"device": "cuda:1"}, "device", "cuda:1"),
    ],
)
def test_values(settings: dict, name: str, value: object) -> None:
    assert getattr(parse(**settings), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_num_seqs", 0),
        ("max_num_seqs", 10**9),
        ("kv_cache_memory_bytes", 2**62),
        ("max_num_batched_tokens", "many"),
        ("max_model_len", 0),
        ("gpu_memory_utilization", 0),
        ("gpu_memory_utilization", 1.5),
        ("kv_cache_memory_bytes", -1),
        ("block_size", 24),
        ("block_size", 256),
        ("dtype", "int8"),
        ("load_format", "pt"),
        ("scheduling_policy", "lifo"),
        ("device", "tpu"),
        ("max_queue_size", 0),
        ("hf_overrides", []),
        ("model", ""),
    ],
)
def test_wrong_values_are_named(name: str, value: object) -> None:
    with pytest.raises(LoadFailed, match=rf"^model.json of model 'm' is not valid: '{name}' [a-z].*\.$"):
        parse(**{name: value})


def test_an_itl_target_needs_chunks() -> None:
    """A prompt that must go whole into a step could wait behind decodes for ever."""
    text = json.dumps({"model": "m", "itl_target_ms": 9, "enable_chunked_prefill": False})
    with pytest.raises(LoadFailed, match="'itl_target_ms' decides how large chunks of prompts are, so it needs enable_chunked"):
        parse_settings(text, "m")


def test_every_wrong_key_is_in_one_sentence() -> None:
    with pytest.raises(LoadFailed, match="'max_num_seqs' should be greater than or equal to 1; 'seed' should be a valid integer"):
        parse(max_num_seqs=0, seed="x")


def test_a_secret_is_never_shown() -> None:
    with pytest.raises(LoadFailed) as caught:
        parse(hf_token=["hf_secret"])
    assert "hf_secret" not in str(caught.value)
    assert "hf_secret" not in repr(parse(hf_token="hf_secret"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('["model"]', "must be a JSON object"),
        ("{}", "'model' is missing."),
        ('{"model": "\\ud800"}', "is not JSON: a string holds half of a surrogate pair."),
        ('{"\\udfff": 1}', "is not JSON: a string holds half of a surrogate pair."),
        ('{"hf_overrides": {"a": ["\\ud800"]}}', "is not JSON: a string holds half of a surrogate pair."),
    ],
)
def test_text_that_is_no_model_json(text: str, says: str) -> None:
    with pytest.raises(LoadFailed, match=says):
        parse_settings(text, "m")


@pytest.mark.parametrize(("given", "names"), [('"a"', ["a"]), ('["a", "b/c"]', ["a", "b/c"]), ("null", [])])
def test_a_model_may_have_other_names(given: str, names: list[str]) -> None:
    assert parse_settings(f'{{"model": "m", "served_model_name": {given}}}', "m").served_model_name == names


@pytest.mark.parametrize("given", ['""', "1", '["a", 2]', "[[]]"])
def test_a_name_is_a_string(given: str) -> None:
    with pytest.raises(LoadFailed, match="'served_model_name'"):
        parse_settings(f'{{"model": "m", "served_model_name": {given}}}', "m")
