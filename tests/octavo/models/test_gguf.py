"""GGUF files: written with the ``gguf`` package from a Transformers model, read by ours."""

import importlib.util
import struct

import gguf
import numpy as np
import pytest
import torch

from octavo.errors import LoadFailed
from octavo.models.gguf import GgufCheckpoint, config_of
from octavo.models.gguf_file import GgufFile

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name):
    stem, kind = name.rsplit(".", 1)
    if stem.startswith("model.layers."):
        _, _, index, rest = stem.split(".", 3)
        return f"blk.{index}.{NAMES[rest]}.{kind}"
    return f"{NAMES[stem]}.{kind}"


def interleaved(weights, heads):
    """What llama.cpp's converter does to Llama's queries and keys."""
    return weights.reshape(heads, 2, -1, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def write(path, model, kind=gguf.GGMLQuantizationType.F32, arch=None, extra=None, leave_out=()):
    """A GGUF file of ``model``; matrices of whole blocks become ``kind``. Returns the weights as the file has them."""
    config = model.config
    arch = arch or config.model_type
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_key_length(config.head_dim if hasattr(config, "head_dim") else config.hidden_size // config.num_attention_heads)
    writer.add_token_list(["a", "<|endoftext|>", "<|im_end|>"])
    writer.add_token_types([1, 3, 3])
    writer.add_eos_token_id(2)
    for key, value in (extra or {}).items():
        writer.add_tensor(key, value) if isinstance(value, np.ndarray) else writer.add_key_value(key, value, _kind(value))
    kept = {}
    for name, tensor in model.state_dict().items():
        if name in leave_out or (config.tie_word_embeddings and name == "lm_head.weight"):
            continue
        weights = tensor.numpy()
        block = gguf.GGML_QUANT_SIZES[kind][0]
        if weights.ndim == 2 and weights.shape[1] % block == 0:
            packed, raw = gguf.quantize(weights, kind), kind
        else:
            packed, raw = weights, gguf.GGMLQuantizationType.F32
        kept[name] = torch.from_numpy(gguf.dequantize(packed, raw).copy())
        for part, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if part in name and arch == "llama":
                packed = interleaved(packed, heads)
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(packed), raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return kept


def _kind(value):
    return gguf.GGUFValueType.STRING if isinstance(value, str) else gguf.GGUFValueType.FLOAT32


TOKENS = torch.randint(0, 131, (40,), generator=torch.Generator().manual_seed(9))


@torch.inference_mode()
def logits_of(model, weights):
    """A Transformers model's logits with other weights."""
    model = type(model)(model.config).eval()
    model.load_state_dict(weights, strict=False)
    return model(TOKENS[None]).logits[0]


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0"])
def test_quantisations(models, load, paged, tmp_path, kind):
    model, _ = models("llama")
    kept = write(tmp_path / "small.gguf", model, gguf.GGMLQuantizationType[kind])
    ours = paged(load(tmp_path / "small.gguf"), 1, 64).feed([(0, TOKENS.tolist())])[0]
    torch.testing.assert_close(ours, logits_of(model, kept), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["llama-biases", "qwen2", "qwen3", "llama-linear-rope"])
def test_families(models, load, paged, tmp_path, name):
    model, _ = models(name)
    scaling = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0} if "linear" in name else {}
    kept = write(tmp_path / "small.gguf", model, extra=scaling)
    ours = paged(load(tmp_path / "small.gguf"), 1, 64).feed([(0, TOKENS.tolist())])[0]
    torch.testing.assert_close(ours, logits_of(model, kept), atol=1e-4, rtol=0)


def test_llama3_frequencies_come_as_divisors(models, load, paged, tmp_path):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    model, _ = models("llama-llama3-rope")
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](model.config, "cpu")
    plain = 1.0 / 500.0 ** (torch.arange(0, 8, 2).float() / 8)
    kept = write(tmp_path / "small.gguf", model, extra={"rope_freqs.weight": (plain / scaled).numpy()})
    ours = paged(load(tmp_path / "small.gguf"), 1, 64).feed([(0, TOKENS.tolist())])[0]
    torch.testing.assert_close(ours, logits_of(model, kept), atol=1e-4, rtol=0)


def test_every_token_that_ends_a_turn_is_known(models, load, tmp_path):
    model, _ = models("llama")
    write(tmp_path / "small.gguf", model)
    assert load(tmp_path / "small.gguf").shape.eos_token_ids == (2, 1)


def test_a_large_tensor_is_read_in_slices(models, tmp_path, monkeypatch):
    model, _ = models("llama")
    kept = write(tmp_path / "small.gguf", model, gguf.GGMLQuantizationType.Q8_0)
    monkeypatch.setattr("octavo.models.gguf.SLICE_ELEMENTS", 500)
    checkpoint = GgufCheckpoint(GgufFile(tmp_path / "small.gguf"))
    for name, weights in kept.items():
        assert torch.equal(checkpoint.read(name, torch.float32), weights), name


def test_tensors_are_accounted_for(models, load, tmp_path):
    model, _ = models("llama")
    write(tmp_path / "lacks.gguf", model, leave_out=["model.layers.1.mlp.up_proj.weight"])
    with pytest.raises(LoadFailed, match=r"The weights lack 1 tensor: 'model\.layers\.1\.mlp\.up_proj\.weight'\."):
        load(tmp_path / "lacks.gguf")
    write(tmp_path / "more.gguf", model, extra={"blk.0.ffn_gate_exps.weight": np.ones((4, 4), np.float32)})
    with pytest.raises(
        LoadFailed, match=r"hold 1 tensor that the model's config has no place for: 'blk\.0\.ffn_gate_exps\.weight'"
    ):
        load(tmp_path / "more.gguf")


def test_an_architecture_that_is_not_served(models, load, tmp_path):
    model, _ = models("llama")
    write(tmp_path / "small.gguf", model, arch="gemma2")
    with pytest.raises(LoadFailed, match="The GGUF architecture 'gemma2' is not supported; supported are llama, qwen2, qwen3"):
        load(tmp_path / "small.gguf")


@pytest.mark.parametrize("keep", [0, 3, 23, 200, 0.9])
def test_a_file_that_was_not_copied_whole(models, load, tmp_path, keep):
    model, _ = models("llama")
    path = tmp_path / "small.gguf"
    write(path, model)
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(LoadFailed, match=r"small\.gguf") as caught:
        load(path)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("field", ["<Q", "<I"])
def test_damaged_heads_fail_cleanly_and_quickly(models, tmp_path, field):
    """A huge length anywhere in the head is refused before anything is allocated for it."""
    model, _ = models("llama")
    path = tmp_path / "small.gguf"
    write(path, model)
    whole = path.read_bytes()
    for at in range(4, 600, 3):
        path.write_bytes(whole[:at] + struct.pack(field, 2**31 + 2**25 * at % 2**31) + whole[at + struct.calcsize(field) :])
        try:
            file = GgufFile(path)
            config_of(file)
            GgufCheckpoint(file)
        except LoadFailed:
            continue


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="Transformers reads GGUF with accelerate only")
def test_the_demo_model_equals_transformers(demo_gguf, load, paged):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(demo_gguf.parent, gguf_file=demo_gguf.name, dtype=torch.float32).eval()
    tokens = torch.randint(0, 49152, (64,), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        theirs = model(tokens[None]).logits[0]
    ours = paged(load(demo_gguf), 1, 64).feed([(0, tokens.tolist())])[0]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
