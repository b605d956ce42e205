"""The peer that a CPU measurement is held against: ``transformers`` ``generate`` on the same weights, threads and token ids."""

import time
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from octavo.config import EngineConfig, WeightsFormat


class Timing(NamedTuple):
    """Seconds from the start to the first token and to the last one."""

    first: float
    total: float


class Transformers:
    """``generate`` of ``transformers``, greedy, with its default attention and dynamic cache."""

    def __init__(self, config: EngineConfig, dtype: torch.dtype) -> None:
        """Load the weights that ``config`` names, in ``dtype``, on the CPU."""
        self.model = _load(config, dtype)

    def generate(self, prompts: list[list[int]], new_tokens: int) -> Timing:
        """Time ``new_tokens`` greedy tokens for ``prompts`` (all of one length) as one static batch."""
        start = time.perf_counter()
        self._run(prompts, 1)
        first = time.perf_counter() - start
        start = time.perf_counter()
        self._run(prompts, new_tokens)
        return Timing(first, time.perf_counter() - start)

    def _run(self, prompts: list[list[int]], new_tokens: int) -> None:
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            out = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=new_tokens,
                max_new_tokens=new_tokens,
                pad_token_id=0,
            )
        assert out.shape[1] == ids.shape[1] + new_tokens


def _load(config: EngineConfig, dtype: torch.dtype) -> PreTrainedModel:
    if config.weights_format is WeightsFormat.GGUF:
        path = Path(config.weights)
        return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=dtype).eval()
    return AutoModelForCausalLM.from_pretrained(config.weights, dtype=dtype).eval()
