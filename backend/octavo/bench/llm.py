"""``LLM`` under the same load as the engine alone: what its process, its socket and its texts cost."""

import time

from octavo import LLM, SamplingParams
from octavo.config import EngineConfig


class MeasuredLlm:
    """An ``LLM`` on the weights of another engine's configuration."""

    def __init__(self, config: EngineConfig) -> None:
        """Load what ``config`` names, in another process."""
        self._llm = LLM(
            config.weights,
            tokenizer=config.tokenizer,
            device=config.device,
            dtype=config.dtype,
            load_format=config.weights_format.value,
            max_model_len=config.max_model_len,
            max_num_seqs=config.max_num_seqs,
            max_num_batched_tokens=config.max_num_batched_tokens,
            gpu_memory_utilization=config.gpu_memory_utilization,
            kv_cache_memory_bytes=config.kv_cache_memory_bytes,
            enable_prefix_caching=config.enable_prefix_caching,
        )

    def seconds(self, prompts: list[list[int]], new_tokens: int) -> float:
        """What ``generate`` takes for exactly ``new_tokens`` greedy tokens each."""
        sampling = SamplingParams(temperature=0, max_tokens=new_tokens, ignore_eos=True)
        start = time.perf_counter()
        self._llm.generate(prompts, sampling, use_tqdm=False)
        return time.perf_counter() - start
