"""Repositories of models that are nothing but a configuration and a tokenizer."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

MODELS = json.loads(Path(__file__).with_name("models.json").read_text())
SMALL = {
    "model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}  # fmt: skip


def write_snapshot(folder: Path, config: dict) -> Path:
    """``config.json`` and a tokenizer of bytes."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(BPE(vocab={token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16", **config}))
    return folder


def write_model(repository: Path, name: str, snapshot: Path, config: str = "", version: int = 1, **settings: object) -> None:
    """A model without weights; ``config`` is its ``config.pbtxt``, ``settings`` go into ``model.json``."""
    folder = repository / name
    (folder / str(version)).mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config)
    (folder / str(version) / "model.json").write_text(json.dumps({"model": str(snapshot), "load_format": "dummy", **settings}))


def plans(repository: Path, gpu: str) -> dict[str, dict]:
    """By model, what ``octavo check`` says of it for a GPU, in a process of its own: it is to launch no kernel from then on."""
    words = [sys.executable, "-m", "octavo", "check", "--json", "--model-repository", str(repository), "--gpu-memory", gpu]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = ":".join(path for path in sys.path if path)
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout, done.stderr
    return {finding["model"]: finding for finding in json.loads(done.stdout)["models"]}
