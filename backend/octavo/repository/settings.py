"""``ModelSettings``: a validated ``model.json``. Knows what engine arguments mean, not where weights lie."""

import logging
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from octavo.config import ReasoningParser, SchedulingPolicy, ToolCallParser
from octavo.errors import LoadFailed
from octavo.repository.engine_arguments import MODEL_JSON, honoured
from octavo.repository.json_text import parse_json

log = logging.getLogger(__name__)

MAX_NAMES = 32
ServedName = Annotated[str, Field(min_length=1, max_length=256)]
_DTYPE_NAMES = {"auto": None, "half": "float16", "float": "float32"}


class LoadFormat(StrEnum):
    """How the weights lie on disk; ``AUTO`` takes what is there, safetensors first."""

    AUTO = "auto"
    SAFETENSORS = "safetensors"
    GGUF = "gguf"
    DUMMY = "dummy"


def _dtype(value: object) -> object:
    return _DTYPE_NAMES.get(value, value) if isinstance(value, str) else value


def _whole(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _length(value: object) -> object:
    return None if value in (-1, "-1", "auto") else value


def _listed(value: object) -> object:
    """One name stands for a list of it."""
    return [value] if isinstance(value, str) else [] if value is None else value


class ModelSettings(BaseModel):
    """The honoured engine arguments, under vLLM's names and with vLLM's meanings; None leaves the choice to the engine.

    Numbers and booleans may be given as strings, as vllm_backend's users do. Ours are ``max_queue_size``, how many requests may
    wait before more are refused, and ``itl_target_ms`` and ``deterministic``, see ``EngineConfig``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)
    served_model_name: Annotated[list[ServedName], BeforeValidator(_listed), Field(max_length=MAX_NAMES)] = []
    tokenizer: str | None = None
    revision: str | None = None
    tokenizer_revision: str | None = None
    download_dir: str | None = None
    hf_token: str | bool | None = Field(default=None, repr=False)
    load_format: LoadFormat = LoadFormat.AUTO
    dtype: Annotated[Literal["float16", "bfloat16", "float32"] | None, BeforeValidator(_dtype)] = None
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    max_model_len: Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_length)] = None
    max_num_seqs: int = Field(default=256, ge=1, le=2**16)
    max_num_batched_tokens: int = Field(default=2048, ge=1, le=2**24)
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    kv_cache_memory_bytes: int | None = Field(default=None, ge=1, le=2**50)
    block_size: Annotated[Literal[16, 32, 64, 128] | None, BeforeValidator(_whole)] = None
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    itl_target_ms: float | None = Field(default=None, gt=0)
    deterministic: bool = False
    scheduling_policy: SchedulingPolicy = SchedulingPolicy.FCFS
    seed: int = 0
    max_logprobs: int = Field(default=20, ge=0)
    max_queue_size: int = Field(default=1024, ge=1)
    tool_call_parser: ToolCallParser | None = None
    reasoning_parser: ReasoningParser | None = None
    hf_overrides: dict[str, Any] = {}

    @field_validator("itl_target_ms")
    @classmethod
    def _itl_needs_chunks(cls, value: float | None, info: ValidationInfo) -> float | None:
        """A prompt that must go whole into a step could wait behind decodes for ever."""
        if value is not None and not info.data.get("enable_chunked_prefill", True):
            raise PydanticCustomError("needs_chunks", "decides how large chunks of prompts are, so it needs enable_chunked_prefill")
        return value


def parse_settings(text: str, model: str) -> ModelSettings:
    """The settings in ``text``, a ``model.json`` of ``model``; keys without effect are logged.

    Raises ``LoadFailed`` with a sentence for anything but a right one.
    """
    try:
        arguments = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise LoadFailed(f"model.json of model '{model}' is not JSON: {_sentence(str(error))}") from error
    if not isinstance(arguments, dict):
        raise LoadFailed(f"model.json of model '{model}' must be a JSON object of engine arguments.")
    return read_settings(arguments, model)


def read_settings(arguments: Mapping[str, object], model: str, source: str = MODEL_JSON) -> ModelSettings:
    """The settings that ``source`` gives for ``model``, by name; those without effect are logged. Raises ``LoadFailed``."""
    split = honoured(arguments, source)
    for note in split.notes:
        log.info("Model '%s': %s", model, note)
    problems = split.problems
    try:
        settings = ModelSettings.model_validate(split.kept)
    except ValidationError as error:
        problems = [*problems, f"{source} of model '{model}' is not valid: {_problems(error)}"]
    if problems:
        raise LoadFailed(*problems)
    return settings


def _problems(error: ValidationError) -> str:
    """One clause per key, without the values: one of them may be a secret."""
    clauses: dict[str, str] = {}
    for problem in error.errors(include_url=False, include_input=False):
        clauses.setdefault(str(problem["loc"][0]), _clause(problem))
    return "; ".join(f"'{key}' {clause}" for key, clause in clauses.items()) + "."


def _clause(problem: Mapping[str, Any]) -> str:
    """What pydantic says of one value, as the rest of a sentence that starts with the key."""
    if problem["type"] == "missing":
        return "is missing"
    message = re.sub(r"^Input should", "should", problem["msg"])
    return message[:1].lower() + message[1:]


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
