"""RoPE's tables against Transformers', number for number."""

import pytest
import torch

from octavo.models.rope import read_rope

CPU = torch.device("cpu")
THETA = {"rope_theta": 50_000.0}
KINDS = {
    "default": {},
    "linear": {"factor": 3.0},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 256},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 256},
    "yarn-mscale": {"factor": 4.0, "original_max_position_embeddings": 256, "mscale": 0.8, "mscale_all_dim": 0.4},
    "yarn-fixed": {
        "factor": 8.0,
        "original_max_position_embeddings": 256,
        "attention_factor": 1.5,
        "beta_fast": 20,
        "beta_slow": 2,
    },
}


@pytest.mark.parametrize("name", KINDS)
def test_the_table_is_transformers(name):
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    parameters = {"rope_type": name.split("-")[0]} | THETA | KINDS[name]
    config = LlamaConfig(head_dim=64, max_position_embeddings=1024, rope_parameters=dict(parameters))
    cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1), torch.arange(1024)[None])
    table = read_rope(parameters, 64, 1024).table(1024, CPU)
    assert table.dtype == torch.float32
    assert torch.equal(table, torch.cat([cos[0, :, :32], sin[0, :, :32]], dim=1))
