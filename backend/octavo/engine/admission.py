"""``Admission``: turns an ``EngineRequest`` into a ``Request``, or says why it can never be served. Knows the limits, no queue."""

import os
from collections.abc import Iterable

import numpy as np

from octavo.config import EngineConfig
from octavo.engine.messages import EngineInfo, EngineRequest
from octavo.engine.request import Request, Terms
from octavo.errors import InvalidRequest
from octavo.sampling import SamplingParams


class Admission:
    """The limits of one engine. Whatever passes can be computed alone in the whole pool, so nothing waits for ever."""

    def __init__(self, config: EngineConfig, info: EngineInfo) -> None:
        """Limits from what was configured and what the loaded model allows."""
        self._info = info
        self._pool_tokens = info.num_pages * info.page_size
        self._longest_prompt = info.max_model_len if config.enable_chunked_prefill else config.max_num_batched_tokens
        self._entropy = np.random.default_rng([config.seed % 2**64, int.from_bytes(os.urandom(16))])

    def admit(self, client: bytes, message: EngineRequest, now: float) -> Request:
        """The request with its terms settled; raises ``InvalidRequest``."""
        sampling = message.sampling
        prompt = self._checked_ids("prompt_token_ids", message.prompt_token_ids)
        self._checked_ids("stop_token_ids", sampling.stop_token_ids)
        self._checked_ids("logit_bias", sampling.logit_bias)
        self._check_logprobs(sampling)
        if sampling.structured_outputs is not None and not self._info.eos_token_ids:
            raise InvalidRequest("structured_outputs must be left out: the model names no token that ends an answer.")
        eos = () if sampling.ignore_eos else tuple(self._info.eos_token_ids)
        limit = self._limit(len(prompt), sampling.max_tokens)
        terms = Terms(limit, self._seed(sampling), eos, frozenset((*eos, *sampling.stop_token_ids)))
        return Request(client, message, prompt, terms, now)

    def _checked_ids(self, name: str, token_ids: Iterable[int]) -> np.ndarray:
        vocab = self._info.vocab_size
        try:
            ids = np.array([*token_ids], np.int64)
        except OverflowError:
            ids = np.array([-1])
        if len(ids) and not (ids.min() >= 0 and ids.max() < vocab):
            raise InvalidRequest(f"{name} must hold token ids between 0 and {vocab - 1}, the model's vocabulary.")
        return ids

    def _check_logprobs(self, sampling: SamplingParams) -> None:
        most = self._info.max_logprobs
        for name, value in (("logprobs", sampling.logprobs), ("prompt_logprobs", sampling.prompt_logprobs)):
            if value is not None and value > most:
                raise InvalidRequest(f"{name} must be at most {most}, got {value}.")

    def _limit(self, prompt: int, max_tokens: int | None) -> int:
        longest, pool = self._info.max_model_len, self._pool_tokens
        if prompt == 0:
            raise InvalidRequest("The prompt must hold at least one token.")
        if prompt >= longest:
            raise InvalidRequest(
                f"The prompt holds {prompt} tokens, but the model takes at most {longest}, of which at least one is for the answer."
            )
        if prompt > self._longest_prompt:
            raise InvalidRequest(
                f"The prompt holds {prompt} tokens, but without chunked prefill a step computes at most {self._longest_prompt}."
            )
        # The last token of an answer is never computed: it needs no slot.
        if max_tokens is None:
            limit = min(longest, pool + 1)
            needed = prompt
        else:
            limit = min(longest, prompt + max_tokens)
            needed = limit - 1
        if needed > pool:
            raise InvalidRequest(
                f"The request needs room for {needed} tokens (a prompt of {prompt} and an answer of up to {limit - prompt}), "
                f"but the model's whole KV cache holds {pool}."
            )
        return limit

    def _seed(self, sampling: SamplingParams) -> int:
        if sampling.seed in (None, -1):  # -1 is no seed to vLLM either
            return int(self._entropy.integers(-(2**63), 2**63))
        return (sampling.seed + 2**63) % 2**64 - 2**63
