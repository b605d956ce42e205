"""``ModelSpec``: all that is needed to start one version of a model. Knows no file; it is what the repository hands upwards."""

import msgspec

from octavo.config import EngineConfig
from octavo.repository.settings import ModelSettings
from octavo.repository.sources import Source


class ModelSpec(msgspec.Struct, frozen=True):
    """One version of one model. ``config`` is the completed ``mc.ModelConfig``, serialized; ``aliases``: other names for it."""

    name: str
    version: int
    config: bytes
    engine: EngineConfig
    aliases: list[str] = []


def engine_config(name: str, version: int, settings: ModelSettings, source: Source, device: str) -> EngineConfig:
    """The engine's settings, with every reference resolved; ``device`` may be "auto"."""
    return EngineConfig(
        name=name,
        version=version,
        weights=str(source.weights),
        weights_format=source.format,
        tokenizer=str(source.tokenizer),
        device=device,
        dtype=settings.dtype,
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        kv_cache_memory_bytes=settings.kv_cache_memory_bytes,
        block_size=settings.block_size,
        enable_prefix_caching=settings.enable_prefix_caching,
        enable_chunked_prefill=settings.enable_chunked_prefill,
        itl_target_ms=settings.itl_target_ms,
        deterministic=settings.deterministic,
        scheduling_policy=settings.scheduling_policy,
        seed=settings.seed,
        max_logprobs=settings.max_logprobs,
        max_queue_size=settings.max_queue_size,
        tool_call_parser=settings.tool_call_parser,
        reasoning_parser=settings.reasoning_parser,
        hf_overrides=settings.hf_overrides,
    )
