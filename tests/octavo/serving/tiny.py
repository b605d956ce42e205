"""A model small enough to load in no time: a random Llama over bytes, written as a Hugging Face snapshot."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

EOS = 256
VOCAB_SIZE = 260
MAX_LENGTH = 2048


def write_snapshot(folder: Path) -> None:
    """``config.json`` and ``tokenizer.json``; the weights are drawn when the model is loaded (``load_format: dummy``)."""
    folder.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
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
    byte_tokens = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocab=byte_tokens, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))


def write_model(repository: Path, name: str, snapshot: Path, version: int = 1, **settings: object) -> None:
    """A model of ``repository`` that serves ``snapshot``; ``settings`` go into ``model.json``."""
    folder = repository / name
    (folder / str(version)).mkdir(parents=True)
    config = 'backend: "octavo"\nversion_policy { all {} }\n'
    (folder / "config.pbtxt").write_text(config)
    settings = {"model": str(snapshot), "load_format": "dummy", "dtype": "float32", **settings}
    (folder / str(version) / "model.json").write_text(json.dumps(settings))
