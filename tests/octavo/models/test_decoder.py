"""Every family's logits, through pages, against the Transformers class of the same weights."""

import copy
from dataclasses import replace

import pytest
import torch

from octavo.models.footprint import weights_bytes
from octavo.models.linear import Precision

CONFIGS = [
    "llama", "llama-llama3-rope", "llama-linear-rope", "llama-dynamic-rope", "llama-yarn-rope", "llama-biases", "llama-head-dim",
    "mistral", "qwen2", "qwen3",
]  # fmt: skip
TOLERANCE = 1e-4


def prompts(count, length=45):
    return torch.randint(0, 131, (count, length), generator=torch.Generator().manual_seed(5))


@torch.inference_mode()
def expected(model, tokens):
    return model(tokens[None]).logits[0]


def close(ours, theirs, tolerance=TOLERANCE):
    torch.testing.assert_close(ours, theirs.float(), atol=tolerance, rtol=0)
    assert theirs.std() > 0.3, "the logits must say something"


@pytest.mark.parametrize("name", CONFIGS)
def test_a_whole_prompt_at_once(models, load, paged, name):
    model, folder = models(name)
    tokens = prompts(1)[0]
    close(paged(load(folder), 1, 64).feed([(0, tokens.tolist())])[0], expected(model, tokens))


@pytest.mark.parametrize("name", CONFIGS)
def test_pieces_of_a_prompt_then_token_by_token(models, load, paged, name):
    model, folder = models(name)
    tokens = prompts(1)[0].tolist()
    rows = paged(load(folder), 1, 64)
    pieces = [tokens[:7], tokens[7:20], tokens[20:38], *([token] for token in tokens[38:])]
    close(torch.cat([rows.feed([(0, piece)])[0] for piece in pieces]), expected(model, torch.tensor(tokens)))


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_a_mixed_batch(models, load, paged, name):
    """Rows that decode beside rows that prefill: none sees another's tokens."""
    model, folder = models(name)
    tokens = prompts(4).tolist()
    rows = paged(load(folder), 4, 64)
    got = [[], [], [], []]
    steps = [
        [(0, tokens[0][:5]), (1, tokens[1][:30])],
        [(0, tokens[0][5:6]), (1, tokens[1][30:31]), (2, tokens[2][:40]), (3, tokens[3][:2])],
        [(2, tokens[2][40:41]), (1, tokens[1][31:32]), (3, tokens[3][2:9]), (0, tokens[0][6:])],
    ]
    for step in steps:
        for (row, _), logits in zip(step, rows.feed(step), strict=True):
            got[row].append(logits)
    for row, pieces in enumerate(got):
        logits = torch.cat(pieces)
        close(logits, expected(model, torch.tensor(tokens[row]))[: len(logits)])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_on_a_cpu_are_the_rounded_weights(models, load, paged, dtype):
    """Only the weights are rounded: with rounded weights, a float32 Transformers model gives the same logits."""
    model, folder = models("llama-biases")
    decoder = load(folder, dtype)
    assert decoder.weights_dtype == getattr(torch, dtype)
    rounded = copy.deepcopy(model)
    for parameter in rounded.parameters():
        parameter.data = parameter.data.to(decoder.weights_dtype).float()
    tokens = prompts(1)[0]
    logits = paged(decoder, 1, 64).feed([(0, tokens.tolist())])[0]
    tolerance = TOLERANCE if decoder.dtype == torch.float32 else 0.1
    close(logits, expected(rounded, tokens), tolerance)
    assert (logits - expected(model, tokens)).abs().max() > 1e-3


def test_figures(models, load):
    _, folder = models("qwen3")
    decoder = load(folder, max_model_len=64)
    assert decoder.max_len == decoder.shape.max_len == 64
    shapes = decoder.shape.tensors().values()
    assert decoder.weights_bytes == 4 * sum(torch.Size(shape).numel() for shape in shapes)
    assert decoder.dtype == decoder.weights_dtype == torch.float32


def test_a_head_that_is_the_embedding_takes_memory_only_when_it_is_packed(models, load):
    shape = replace(load(models("llama")[1], max_model_len=64).shape, tied=True)
    parts, embedding = shape.tensors(), shape.vocab_size * shape.hidden_size
    half = Precision(torch.bfloat16, torch.bfloat16, packed=False)
    assert weights_bytes(shape, half) == 2 * sum(torch.Size(part).numel() for part in parts.values())
    packed = Precision(torch.bfloat16, torch.float32, packed=True)
    assert weights_bytes(shape, packed) >= weights_bytes(shape, half) + 2 * embedding
