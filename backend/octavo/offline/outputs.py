"""``RequestOutput`` and its parts, shaped like vLLM's: what ``LLM`` returns. Knows how to read a finished ``Generation``."""

import time
from dataclasses import dataclass

from octavo.engine.messages import TokenLogprobs
from octavo.text.generator import Generation
from octavo.text.request import GenerateChunk, SampleDelta
from octavo.text.tokenizer import Tokenizer


@dataclass
class Logprob:
    """One token at one position. ``rank`` counts from 1, the likeliest."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    """One answer. ``logprobs`` has for each token a mapping by id: the token itself first, then the likeliest ones.

    ``finish_reason`` is "stop" or "length"; ``stop_reason`` the stop string or token id that ended it, None at the end of sequence.
    """

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None = None
    stop_reason: int | str | None = None

    def finished(self) -> bool:
        """Always true here: answers are returned whole."""
        return self.finish_reason is not None


@dataclass
class RequestStateStats:
    """When things happened to one request: ``arrival_time`` on the wall clock, ``..._ts`` in seconds of ``time.monotonic``."""

    num_generation_tokens: int
    arrival_time: float
    queued_ts: float
    scheduled_ts: float
    first_token_ts: float
    last_token_ts: float
    first_token_latency: float


@dataclass
class RequestOutput:
    """One prompt's answers. ``prompt`` is None for token ids without a text; ``prompt_logprobs`` has None for the first token."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    prompt_logprobs: list[dict[int, Logprob] | None] | None
    outputs: list[CompletionOutput]
    finished: bool
    metrics: RequestStateStats | None = None
    num_cached_tokens: int | None = None


def read_output(
    request_id: str, prompt: str | None, generation: Generation, chunk: GenerateChunk, tokenizer: Tokenizer
) -> RequestOutput:
    """The output that ``chunk`` is, the only one of a ``generation`` with one prompt."""
    scored = chunk.prompt_logprobs[0] if chunk.prompt_logprobs else None
    return RequestOutput(
        request_id=request_id,
        prompt=prompt,
        prompt_token_ids=chunk.prompt_token_ids[0],
        prompt_logprobs=None if scored is None else [None if one is None else _by_id(one, tokenizer) for one in scored],
        outputs=[_completion(index, sample, tokenizer) for index, sample in enumerate(chunk.samples)],
        finished=True,
        metrics=_metrics(generation),
        num_cached_tokens=chunk.num_cached_tokens,
    )


def _completion(index: int, sample: SampleDelta, tokenizer: Tokenizer) -> CompletionOutput:
    entries = None if sample.logprobs is None else [_by_id(entry, tokenizer) for entry in sample.logprobs]
    return CompletionOutput(
        index, sample.text, sample.token_ids, sample.cumulative_logprob, entries, sample.finish_reason, sample.stop_reason
    )


def _by_id(entry: TokenLogprobs, tokenizer: Tokenizer) -> dict[int, Logprob]:
    return {
        token_id: Logprob(logprob, rank, tokenizer.token_text(token_id))
        for token_id, logprob, rank in zip(entry.token_ids, entry.logprobs, entry.ranks, strict=True)
    }


def _metrics(generation: Generation) -> RequestStateStats | None:
    if generation.first_token_at is None or generation.finished_at is None:
        return None
    arrived = generation.arrived_at
    return RequestStateStats(
        num_generation_tokens=generation.num_generation_tokens,
        arrival_time=time.time() - (time.monotonic() - arrived),
        queued_ts=arrived,
        scheduled_ts=arrived + (generation.queue_seconds or 0.0),
        first_token_ts=generation.first_token_at,
        last_token_ts=generation.finished_at,
        first_token_latency=generation.first_token_at - arrived,
    )
