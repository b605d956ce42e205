"""What the models' tests share: small random Transformers models on disk, and a paged cache with a shuffled page table."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from octavo.config import EngineConfig, WeightsFormat
from octavo.models.attention import AttentionContext
from octavo.models.decoder import Decoder
from octavo.models.loader import load_model

PAGE_SIZE = 4
SMALL = {
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 32}
CONFIGS = {
    "llama": ("llama", {"tie_word_embeddings": True}),
    "llama-llama3-rope": ("llama", {"rope_parameters": LLAMA3}),
    "llama-linear-rope": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}}),
    "llama-dynamic-rope": ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 2.0}}),
    "llama-yarn-rope": ("llama", {"rope_parameters": YARN}),
    "llama-biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-head-dim": ("llama", {"head_dim": 32}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 16}),
}


def make_model(name: str) -> torch.nn.Module:
    """A Transformers model whose every weight, norm and bias is random."""
    from transformers import AutoConfig, AutoModelForCausalLM

    family, options = CONFIGS[name]
    config = AutoConfig.for_model(family, **(SMALL | options))
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for key, parameter in model.named_parameters():
        parameter.data.normal_(1.0 if "norm" in key else 0.0, 0.15)
    return model


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[torch.nn.Module, Path]]:
    """By name: the Transformers model and the folder it is saved in. Made once."""
    made: dict[str, tuple[torch.nn.Module, Path]] = {}

    def get(name: str) -> tuple[torch.nn.Module, Path]:
        if name not in made:
            model, folder = make_model(name), tmp_path_factory.mktemp(name)
            model.save_pretrained(folder)
            made[name] = model, folder
        return made[name]

    return get


def load(path: Path, dtype: str = "float32", **options: object) -> Decoder:
    """Load a snapshot or a GGUF file on the CPU."""
    kind = WeightsFormat.GGUF if path.suffix == ".gguf" else WeightsFormat.SAFETENSORS
    settings = {"name": "small", "version": 1, "weights": str(path), "weights_format": kind, "tokenizer": str(path), "dtype": dtype}
    return load_model(EngineConfig(**(settings | options)), torch.device("cpu"))


class PagedRows:
    """Some rows' cache in a pool whose pages are dealt out in no order; the rest of the pool holds other numbers."""

    def __init__(self, decoder: Decoder, num_rows: int, max_len: int) -> None:
        self._decoder = decoder
        shape, pages = decoder.shape, -(-max_len // PAGE_SIZE)
        source = torch.Generator().manual_seed(3)
        order = torch.randperm(num_rows * pages + 3, generator=source)
        self._pages = order[: num_rows * pages].view(num_rows, pages).int()
        size = (len(order), shape.num_layers, 2, shape.num_kv_heads, PAGE_SIZE, shape.head_dim)
        self._pool = torch.randn(size, generator=source, dtype=torch.float32).to(decoder.dtype)
        self._lens = [0] * num_rows

    def feed(self, pieces: Sequence[tuple[int, Sequence[int]]]) -> list[torch.Tensor]:
        """One step: the next tokens of each (row, tokens), rows with one token first. Returns each row's logits [tokens, V]."""
        rows = [row for row, _ in pieces]
        lens = torch.tensor([len(tokens) for _, tokens in pieces])
        positions = [torch.arange(self._lens[row], self._lens[row] + len(tokens)) for row, tokens in pieces]
        pages = [self._pages[row, at // PAGE_SIZE].long() for row, at in zip(rows, positions, strict=True)]
        slots = [page * PAGE_SIZE + at % PAGE_SIZE for page, at in zip(pages, positions, strict=True)]
        for row, tokens in pieces:
            self._lens[row] += len(tokens)
        longer = [len(tokens) for _, tokens in pieces if len(tokens) > 1]
        context = AttentionContext(
            positions=torch.cat(positions),
            slots=torch.cat(slots),
            page_table=self._pages[rows],
            context_lens=torch.tensor([self._lens[row] for row in rows], dtype=torch.int32),
            cu_query=torch.nn.functional.pad(lens.cumsum(0), (1, 0)).int(),
            num_decodes=len(pieces) - len(longer),
            max_query_len=max(longer, default=0),
        )
        kv = [self._pool[:, layer] for layer in range(self._decoder.shape.num_layers)]
        hidden = self._decoder.forward(torch.tensor([token for _, tokens in pieces for token in tokens]), context, kv)
        return list(self._decoder.logits(hidden).split(lens.tolist()))


@pytest.fixture(name="load")
def _load() -> Callable[..., Decoder]:
    return load


@pytest.fixture
def paged() -> type[PagedRows]:
    return PagedRows
