"""``SamplingParams``: what a caller may ask of the sampler, under vLLM's names. Knows no tokenizer, no tensor and no wire."""

import math

import msgspec

from octavo.errors import InvalidRequest

MAX_SAMPLES = 128
MAX_STOPS = 32
MAX_STOP_CHARACTERS = 1024
MAX_LOGIT_BIASES = 1024
# Logits are float32: within these bounds none of them, however it is scaled, becomes infinite, and no difference NaN.
LARGEST_FACTOR = 1e4
LARGEST_BIAS = 1e30


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request's sampling options. Names, meanings and defaults are vLLM's.

    ``temperature`` 0 is greedy. ``top_k`` 0 or -1, ``top_p`` 1 and ``min_p`` 0 switch the filter off. ``seed`` None draws a
    fresh one. ``logprobs`` k returns the k most likely tokens beside the chosen one, of the distribution before temperature
    and penalties. ``logit_bias`` maps a token id to what is added to its logit.
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
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_str_in_output: bool = False
    min_tokens: int = 0
    max_tokens: int | None = 16
    ignore_eos: bool = False
    logit_bias: dict[int, float] = {}
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    skip_special_tokens: bool = True
    detokenize: bool = True

    def __post_init__(self) -> None:
        """Refuse values outside their range, each by name."""
        _between("n", self.n, 1, MAX_SAMPLES)
        _between("temperature", self.temperature, 0.0, LARGEST_FACTOR)
        _between("top_p", self.top_p, 0.0, 1.0, low_open=True)
        _between("top_k", self.top_k, -1, 2**31 - 1)
        _between("min_p", self.min_p, 0.0, 1.0)
        _between("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _between("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _between("repetition_penalty", self.repetition_penalty, 1 / LARGEST_FACTOR, LARGEST_FACTOR)
        _between("min_tokens", self.min_tokens, 0, 2**31 - 1)
        for name in ("max_tokens", "logprobs", "prompt_logprobs", "seed"):
            value = getattr(self, name)
            if value is not None:
                low, high = {"max_tokens": (1, 2**31 - 1), "seed": (-(2**63), 2**64 - 1)}.get(name, (0, 2**31 - 1))
                _between(name, value, low, high)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidRequest(f"min_tokens must be at most max_tokens ({self.max_tokens}), got {self.min_tokens}.")
        if self.n > 1 and self.greedy:
            raise InvalidRequest(f"n must be 1 when temperature is 0, because every sample would be the same, got {self.n}.")
        if len(self.stop) > MAX_STOPS or any(not 0 < len(s) <= MAX_STOP_CHARACTERS for s in self.stop):
            raise InvalidRequest(f"stop must hold at most {MAX_STOPS} strings of 1 to {MAX_STOP_CHARACTERS} characters each.")
        if len(self.logit_bias) > MAX_LOGIT_BIASES or not all(abs(bias) <= LARGEST_BIAS for bias in self.logit_bias.values()):
            bounds = f"between {-LARGEST_BIAS:g} and {LARGEST_BIAS:g}"
            raise InvalidRequest(f"logit_bias must hold at most {MAX_LOGIT_BIASES} token ids, each with a number {bounds}.")

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature < 1e-5

    @property
    def penalised(self) -> bool:
        """Whether the logits depend on which tokens the request has seen."""
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1.0)


def _between(name: str, value: float, low: float, high: float, low_open: bool = False) -> None:
    if not math.isfinite(value) or not low <= value <= high or (low_open and value == low):
        bounds = f"greater than {low} and at most {high}" if low_open else f"between {low} and {high}"
        raise InvalidRequest(f"{name} must be {bounds}, got {value}.")
