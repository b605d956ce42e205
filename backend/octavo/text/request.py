"""``GenerateRequest`` and ``GenerateChunk``: what every dialect asks for and gets back. No wire format is known here."""

import msgspec

from octavo.engine.messages import TokenLogprobs
from octavo.sampling import SamplingParams


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt to be continued by one model.

    ``prompt`` is text or token ids. ``stream`` False yields one chunk with everything. ``priority``: smaller is served
    first. ``queue_timeout``: seconds.
    """

    model: str
    version: int
    prompt: str | list[int]
    sampling: SamplingParams
    stream: bool = False
    priority: int = 0
    queue_timeout: float | None = None
    cache_salt: str = ""


class SampleDelta(msgspec.Struct, frozen=True):
    """What is new in one sample since the last chunk. ``finish_reason`` is vLLM's name, None while it goes on.

    ``cumulative_logprob``: sum over all tokens of the sample so far, None unless logprobs were asked for.
    ``logprobs``: one entry per new token id.
    """

    text: str = ""
    token_ids: list[int] = []
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    cumulative_logprob: float | None = None
    logprobs: list[TokenLogprobs] | None = None


class GenerateChunk(msgspec.Struct, frozen=True):
    """The next piece of an answer: one delta per sample, in order. Exactly one chunk of a request, the last, is ``final``."""

    samples: list[SampleDelta]
    final: bool
    num_prompt_tokens: int
    num_cached_tokens: int = 0
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: list[TokenLogprobs | None] | None = None
