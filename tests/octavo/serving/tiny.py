"""A model small enough to load in no time: a random Llama over bytes, written as a Hugging Face snapshot."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

EOS = 256
VOCAB_SIZE = 260
MAX_LENGTH = 2048
WIDTH, INNER, LAYERS, HEADS, KV_HEADS, HEAD = 64, 128, 2, 4, 2, 16
CHAT_TEMPLATE = """
{%- for message in messages %}
    {%- if message.role not in ('system', 'user', 'assistant') %}
        {{- raise_exception('No role is called ' + message.role + '.') }}
    {%- endif %}
    {{- '<' + message.role + '>' + message.content + '</' + message.role + '>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"""


def write_snapshot(folder: Path) -> None:
    """Configuration, tokenizer, chat template and weights, the same at every call."""
    folder.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCAB_SIZE,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD,
        "max_position_embeddings": MAX_LENGTH,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": EOS,
        "eos_token_id": EOS,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    save_file(_weights(), folder / "model.safetensors")


def byte_tokenizer() -> Tokenizer:
    """A token for each byte, and one that ends a text."""
    byte_tokens = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocab=byte_tokens, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    return tokenizer


def _weights() -> dict[str, np.ndarray]:
    shapes = {"model.embed_tokens": (VOCAB_SIZE, WIDTH), "lm_head": (VOCAB_SIZE, WIDTH), "model.norm": (WIDTH,)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        shapes |= {
            f"{prefix}input_layernorm": (WIDTH,),
            f"{prefix}post_attention_layernorm": (WIDTH,),
            f"{prefix}self_attn.q_proj": (HEADS * HEAD, WIDTH),
            f"{prefix}self_attn.k_proj": (KV_HEADS * HEAD, WIDTH),
            f"{prefix}self_attn.v_proj": (KV_HEADS * HEAD, WIDTH),
            f"{prefix}self_attn.o_proj": (WIDTH, HEADS * HEAD),
            f"{prefix}mlp.gate_proj": (INNER, WIDTH),
            f"{prefix}mlp.up_proj": (INNER, WIDTH),
            f"{prefix}mlp.down_proj": (WIDTH, INNER),
        }
    drawn = np.random.default_rng(0)
    weights = {f"{name}.weight": 0.2 * drawn.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    for special in range(EOS, VOCAB_SIZE):
        # A prompt never leads out of the bytes by itself, so lengths are what a test asks for.
        weights["lm_head.weight"][special] = 0.0
    return weights


def write_model(repository: Path, name: str, snapshot: Path, version: int = 1, **settings: object) -> None:
    """A model of ``repository`` that serves ``snapshot``; ``settings`` go into ``model.json``."""
    folder = repository / name
    (folder / str(version)).mkdir(parents=True)
    config = 'backend: "octavo"\nversion_policy { all {} }\n'
    (folder / "config.pbtxt").write_text(config)
    settings = {"model": str(snapshot), "dtype": "float32", **settings}
    (folder / str(version) / "model.json").write_text(json.dumps(settings))
