"""Configs: what they leave unsaid, and what is refused by name."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.config import EngineConfig, WeightsFormat
from octavo.errors import LoadFailed
from octavo.models.hf_config import read_config, shape_of
from octavo.models.loader import describe_model

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
}


def test_what_is_left_unsaid():
    shape = shape_of(LLAMA)
    assert (shape.num_kv_heads, shape.head_dim, shape.norm_eps, shape.max_len) == (4, 8, 1e-6, 4096)
    assert not (shape.tied or shape.qkv_bias or shape.out_bias or shape.mlp_bias or shape.qk_norm)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt_neox"}, "The model type 'gpt_neox' is not supported; supported are llama, mistral, qwen2, qwen3"),
        ({"model_type": None}, "The model type 'None' is not supported"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "'LlamaForSequenceClassification' is not supported"),
        ({"hidden_act": "gelu"}, "The activation 'gelu' is not supported"),
        ({"quantization_config": {"quant_method": "awq"}}, r"Quantised safetensors \(here 'awq'\) are not supported"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "The RoPE scaling 'longrope' is not supported; supported are default"),
        ({"rope_scaling": {"type": "linear"}}, "The RoPE scaling 'linear' needs factor, which the model's config lacks"),
        ({"rope_scaling": {"type": "linear", "factor": "x"}}, "'linear' of the model's config has a value that cannot be right"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "'linear' of the model's config has a value that cannot be right"),
        ({"partial_rotary_factor": 0.5}, "A partial_rotary_factor other than 1 is not supported"),
        ({"hidden_size": None}, "The model's config lacks 'hidden_size'"),
        ({"hidden_size": "big"}, "'hidden_size' 'big', which must be a whole number from 1"),
        ({"num_hidden_layers": 0}, "'num_hidden_layers' 0, which must be a whole number from 1"),
        ({"num_hidden_layers": 10**9}, "'num_hidden_layers' 1000000000, which must be a whole number from 1 to 1024"),
        ({"num_key_value_heads": 3}, "4 heads of 8 dimensions cannot share 3 key-value heads"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(LoadFailed, match=message):
        shape_of(LLAMA | change)


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2**70), st.floats(), st.text(max_size=3), st.lists(st.integers()), st.just({})
)
KEYS = [
    *LLAMA, "num_key_value_heads", "head_dim", "rms_norm_eps", "hidden_act", "eos_token_id", "dtype", "sliding_window",
    "rope_scaling", "rope_parameters", "quantization_config", "tie_word_embeddings", "attention_bias", "use_sliding_window",
]  # fmt: skip
ROPE_KEYS = [
    "rope_type",
    "rope_theta",
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
    "beta_fast",
]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), ODD, max_size=3), st.sampled_from(["yarn", "llama3", "linear"]), st.data())
def test_no_config_does_more_than_be_refused(change, kind, data):
    rope = {"rope_type": kind, "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope |= data.draw(st.dictionaries(st.sampled_from(ROPE_KEYS), ODD, max_size=2))
    try:
        shape_of(LLAMA | {"rope_scaling": rope} | change)
    except LoadFailed as error:
        assert str(error).endswith(".")


def test_a_sliding_window_caps_the_length(caplog):
    assert shape_of(LLAMA | {"model_type": "mistral", "sliding_window": 1024}).max_len == 1024
    assert "sliding window of 1024 tokens" in caplog.text
    assert shape_of(LLAMA | {"model_type": "mistral", "sliding_window": 9999}).max_len == 4096
    assert shape_of(LLAMA | {"model_type": "qwen2", "sliding_window": 1024, "use_sliding_window": False}).max_len == 4096
    assert shape_of(LLAMA | {"model_type": "qwen2", "sliding_window": 1024, "use_sliding_window": True}).max_len == 1024


def test_old_and_new_names_of_rope_mean_the_same():
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling["original_max_position_embeddings"] = 512
    old = shape_of(LLAMA | {"rope_theta": 500000.0, "rope_scaling": scaling})
    new = {key: value for key, value in LLAMA.items() if key != "rope_theta"} | {
        "rope_parameters": scaling | {"rope_theta": 500000.0}
    }
    assert old == shape_of(new)
    assert old.rope != shape_of(LLAMA).rope


def test_scaling_extends_the_length():
    assert shape_of(LLAMA | {"rope_scaling": {"type": "linear", "factor": 4.0}}).max_len == 16384
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
    assert shape_of(LLAMA | {"rope_scaling": yarn}).max_len == 16384


def test_end_tokens_of_both_files(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"eos_token_id": 2}))
    assert shape_of(read_config(tmp_path)).eos_token_ids == (2,)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 2]}))
    assert shape_of(read_config(tmp_path)).eos_token_ids == (7, 2)
    beyond = LLAMA["vocab_size"]  # a token that no logit is for ends nothing, and must not be looked for in columns of them
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [beyond, -1, 7, beyond + 3]}))
    assert shape_of(read_config(tmp_path)).eos_token_ids == (7, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "'config.json' is not valid JSON"),
        ("[1]", "must hold a JSON object"),
        ("[" * 100_000, "'config.json' is not valid JSON"),
    ],
)
def test_a_damaged_config(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(LoadFailed, match=message):
        read_config(tmp_path)


def test_no_config(tmp_path):
    with pytest.raises(LoadFailed, match=r"has no config\.json"):
        read_config(tmp_path)


def test_more_heads_a_group_than_a_gpu_computes_are_refused_there(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"num_key_value_heads": 1, "head_dim": 8}))
    named = {"name": "m", "version": 1, "weights": str(tmp_path), "weights_format": WeightsFormat.DUMMY, "tokenizer": ""}

    def describe(heads, device, dtype="bfloat16"):
        config = EngineConfig(**named, dtype=dtype, hf_overrides={"num_attention_heads": heads})
        return describe_model(config, torch.device(device)).shape.num_heads

    assert describe(64, "cuda") == 64 and describe(32, "cuda", "float32") == 32 and describe(65, "cpu") == 65
    with pytest.raises(LoadFailed, match="65 heads of the model share one key-value head; on a GPU at most 64 may in bfloat16"):
        describe(65, "cuda")
    with pytest.raises(LoadFailed, match="33 heads of the model share one key-value head; on a GPU at most 32 may in float32"):
        describe(33, "cuda", "float32")


def test_a_length_beyond_the_model_is_refused(models, load):
    _, folder = models("llama")
    with pytest.raises(LoadFailed, match="max_model_len 129 is more than the 128 tokens of the model itself"):
        load(folder, max_model_len=129)
    assert load(folder, hf_overrides={"max_position_embeddings": 256}, max_model_len=129).max_len == 129
