"""``SamplingParams``: what a caller may ask of the sampler, under vLLM's names. Knows no tokenizer, no tensor and no wire."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import msgspec

from octavo.errors import InvalidRequest, Unsupported
from octavo.structured_outputs import StructuredOutputsParams

# What no limit of a server can go beyond.
MAX_SAMPLES = 1024
MAX_STOPS = 1024
MAX_STOP_CHARACTERS = 1 << 16
MAX_LOGIT_BIASES = 1024
MAX_BAD_WORDS = 128
MAX_BAD_WORD_CHARACTERS = 256
# Logits are float32: within these bounds none of them, however it is scaled, becomes infinite, and no difference NaN.
LARGEST_FACTOR = 1e4
LARGEST_BIAS = 1e30


# vLLM's options that are not served, each with the value that asks for nothing.
NOT_SERVED: dict[str, Any] = {
    "allowed_token_ids": None,
    "extra_args": None,
    "flat_logprobs": False,
    "logprob_token_ids": None,
    "prompt_logprob_start": None,
    "prompt_logprob_token_ids": None,
    "repetition_detection": None,
    "routed_experts_prompt_start": 0,
    "skip_reading_prefix_cache": None,
    "spaces_between_special_tokens": True,
    "stream_interval": None,
    "thinking_token_budget": None,
    "trace_decode_token_ids": None,
}


_BOUNDS: dict[str, tuple[float, float]] = {
    "temperature": (0.0, LARGEST_FACTOR),
    "top_k": (-1, 2**31 - 1),
    "min_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "repetition_penalty": (1 / LARGEST_FACTOR, LARGEST_FACTOR),
    "min_tokens": (0, 2**31 - 1),
    "max_tokens": (1, 2**31 - 1),
    "logprobs": (0, 2**31 - 1),
    "prompt_logprobs": (0, 2**31 - 1),
    "seed": (-(2**63), 2**64 - 1),
}
_not_served = attrgetter(*NOT_SERVED)
_NEUTRAL = tuple(NOT_SERVED.values())


class SamplingParams(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One request's sampling options. Names, meanings and defaults are those of vLLM 0.26.

    ``temperature`` 0 is greedy. ``top_k`` 0 or -1, ``top_p`` 1 and ``min_p`` 0 switch the filter off. ``seed`` None draws a
    fresh one. ``logprobs`` k returns the k most likely tokens beside the chosen one, of the distribution before temperature
    and penalties. ``logit_bias`` maps a token id to what is added to its logit. None of ``bad_words`` is written: the last
    token of one does not follow the others. ``stop`` may be one string, and None where a list or a mapping is meant is an
    empty one. The last fields, those of ``NOT_SERVED``, take nothing but their defaults.

    Values are checked when an object is made or replaced, not when a field is set: whoever takes one from a caller makes it anew.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    include_stop_str_in_output: bool = False
    min_tokens: int = 0
    max_tokens: int | None = 16
    ignore_eos: bool = False
    logit_bias: dict[int, float] = {}
    bad_words: Sequence[str] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    skip_special_tokens: bool = True
    detokenize: bool = True
    allowed_token_ids: list[int] | None = None
    extra_args: dict[str, Any] | None = None
    flat_logprobs: bool = False
    logprob_token_ids: list[int] | None = None
    prompt_logprob_start: int | None = None
    prompt_logprob_token_ids: list[int] | None = None
    repetition_detection: Any = None
    routed_experts_prompt_start: int = 0
    skip_reading_prefix_cache: bool | None = None
    spaces_between_special_tokens: bool = True
    stream_interval: int | None = None
    structured_outputs: StructuredOutputsParams | None = None
    thinking_token_budget: int | None = None
    trace_decode_token_ids: list[int] | None = None

    def __post_init__(self) -> None:
        """Refuse values outside their range, each by name. How much of ``n`` and ``stop`` is too much, a server's limits say."""
        self.stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        self.stop_token_ids = tuple(self.stop_token_ids or ())
        self.logit_bias = self.logit_bias or {}
        self.bad_words = tuple(self.bad_words or ())
        if self.n < 1:
            raise InvalidRequest(f"n must be at least 1, got {self.n}.")
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:  # NaN is not, either
                raise InvalidRequest(f"{name} must be between {low} and {high}, got {value}.")
        if not 0.0 < self.top_p <= 1.0:
            raise InvalidRequest(f"top_p must be greater than 0.0 and at most 1.0, got {self.top_p}.")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidRequest(f"min_tokens must be at most max_tokens ({self.max_tokens}), got {self.min_tokens}.")
        if self.n > 1 and self.greedy:
            raise InvalidRequest(f"n must be 1 when temperature is 0, because every sample would be the same, got {self.n}.")
        if not all(self.stop):
            raise InvalidRequest("stop must hold strings of at least one character each.")
        if len(self.logit_bias) > MAX_LOGIT_BIASES or not all(abs(bias) <= LARGEST_BIAS for bias in self.logit_bias.values()):
            bounds = f"between {-LARGEST_BIAS:g} and {LARGEST_BIAS:g}"
            raise InvalidRequest(f"logit_bias must hold at most {MAX_LOGIT_BIASES} token ids, each with a number {bounds}.")
        if len(self.bad_words) > MAX_BAD_WORDS or any(not 0 < len(word) <= MAX_BAD_WORD_CHARACTERS for word in self.bad_words):
            longest = MAX_BAD_WORD_CHARACTERS
            raise InvalidRequest(f"bad_words must hold at most {MAX_BAD_WORDS} strings of 1 to {longest} characters each.")
        if self.structured_outputs is not None and (self.min_tokens or self.ignore_eos):
            other = "min_tokens" if self.min_tokens else "ignore_eos"
            raise InvalidRequest(f"{other} must be left out with structured_outputs, which say where an answer ends.")
        if _not_served(self) != _NEUTRAL:
            for name, neutral in NOT_SERVED.items():
                refuse_unless_neutral(name, getattr(self, name), neutral)

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature < 1e-5

    @property
    def penalised(self) -> bool:
        """Whether the logits depend on which tokens the request has seen."""
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1.0)


def refuse_unless_neutral(name: str, value: Any, neutral: Any) -> None:
    """Raise ``Unsupported`` for an option that is not served, unless its value asks for nothing."""
    if value is not neutral and value not in ([], {}, "") and (type(value) is not type(neutral) or value != neutral):
        raise Unsupported(f"The sampling parameter '{name}' is not supported yet; leave it out.")
