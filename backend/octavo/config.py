"""``EngineConfig``: all that one engine is told about its model and its limits; ``RequestLimits``: those of one request.

Read by every floor; knows none of them.
"""

from enum import StrEnum

import msgspec


class WeightsFormat(StrEnum):
    """How the weights lie on disk."""

    SAFETENSORS = "safetensors"
    GGUF = "gguf"
    DUMMY = "dummy"


class SchedulingPolicy(StrEnum):
    """Who is served first: by arrival, or by (priority, arrival)."""

    FCFS = "fcfs"
    PRIORITY = "priority"


class ToolCallParser(StrEnum):
    """How a model writes calls of tools, by vLLM's names."""

    HERMES = "hermes"
    LLAMA3_JSON = "llama3_json"
    MISTRAL = "mistral"
    PYTHONIC = "pythonic"
    NONE = ""


class ReasoningParser(StrEnum):
    """How a model marks its reasoning, by vLLM's names."""

    DEEPSEEK_R1 = "deepseek_r1"
    QWEN3 = "qwen3"
    MISTRAL = "mistral"
    SEED_OSS = "seed_oss"
    NONE = ""


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One engine's settings, resolved and validated; names are vLLM's engine arguments wherever vLLM has the thing.

    ``weights`` is a folder (a Hugging Face snapshot) or one ``.gguf`` file. ``None`` leaves a choice to the engine: the
    model's own dtype and length, a page size by device, a KV budget from ``gpu_memory_utilization`` (on a CPU: 512 MiB).
    ``itl_target_ms``: what a step may take while requests decode; prompts that arrive meanwhile are computed in chunks that
    keep to it, within ``max_num_batched_tokens``. ``deterministic``: a greedy or seeded answer is the same under any load, bit for
    bit, on the same machine; that costs speed. ``device`` is "cpu", "cuda[:i]" or "auto": a GPU if the engine finds one.
    ``tool_call_parser`` and ``reasoning_parser`` are for whoever reads its answers; None is what the chat template tells.
    """

    name: str
    version: int
    weights: str
    weights_format: WeightsFormat
    tokenizer: str
    device: str = "cpu"
    dtype: str | None = None
    max_model_len: int | None = None
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    gpu_memory_utilization: float = 0.9
    kv_cache_memory_bytes: int | None = None
    block_size: int | None = None
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    itl_target_ms: float | None = None
    deterministic: bool = False
    scheduling_policy: SchedulingPolicy = SchedulingPolicy.FCFS
    seed: int = 0
    max_logprobs: int = 20
    max_queue_size: int = 1024
    tool_call_parser: ToolCallParser | None = None
    reasoning_parser: ReasoningParser | None = None
    hf_overrides: dict[str, bool | int | float | str | list | dict | None] = {}


class RequestLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The most that one request may have of something, whatever model it is for.

    ``elements`` is of any one input tensor, ``samples`` is ``n``, ``stops`` and ``stop_characters`` are the stop strings and the
    length of each.
    """

    inputs: int = 32
    outputs: int = 32
    elements: int = 1 << 22
    samples: int = 128
    stops: int = 32
    stop_characters: int = 1024


DEFAULT_LIMITS = RequestLimits()
