"""``Request``: one sequence in the engine, from arrival to its end. Knows its own tokens and when to stop; nothing of others."""

from math import inf
from typing import NamedTuple

import msgspec
import numpy as np

from octavo.engine.messages import EngineOutput, EngineRequest, FinishReason, TokenLogprobs
from octavo.engine.step import RowStart

NO_ROW = -1


class Terms(NamedTuple):
    """What admission settled for one request.

    ``limit``: the most tokens it may come to have, prompt included. ``seed``: resolved, int64. ``eos_token_ids``: empty under
    ``ignore_eos``. ``stops``: all token ids that end it.
    """

    limit: int
    seed: int
    eos_token_ids: tuple[int, ...]
    stops: frozenset[int]


class Request:
    """The state of one request.

    ``num_computed`` of the ``num_tokens`` known ones have their keys and values in ``pages`` (after the step that is
    planned); it catches up, and a new token is made when it has. A request that waits has no row, no page and nothing computed.
    """

    __slots__ = (
        "arrival", "cache_salt", "capacity", "client", "deadline", "id", "keys", "limit", "newest", "num_cached", "num_computed",
        "num_prompt", "num_tokens", "order", "pages", "priority", "prompt_logprobs", "row", "sample_index", "sampling",
        "started", "terms", "tokens",
    )  # fmt: skip

    def __init__(self, client: bytes, message: EngineRequest, prompt: np.ndarray, terms: Terms, arrival: float) -> None:
        """``prompt``: int [n] token ids. ``arrival``: seconds on the scheduler's clock."""
        self.client = client
        self.id = message.id
        self.sampling = message.sampling
        self.sample_index = message.sample_index
        self.priority = message.priority
        self.cache_salt = message.cache_salt
        self.terms = terms
        self.arrival = arrival
        self.deadline = inf if message.queue_timeout is None else arrival + message.queue_timeout
        self.order: tuple[int, int] = (0, 0)
        self.num_prompt = len(prompt)
        self.num_tokens = len(prompt)
        self.limit = terms.limit
        self.tokens = np.empty(terms.limit, np.int32)
        self.tokens[: len(prompt)] = prompt
        self.newest = int(prompt[-1])
        self.num_computed = 0
        self.row = NO_ROW
        self.pages: list[int] = []
        self.capacity = 0
        self.keys: list[bytes] = []
        self.num_cached = 0
        self.started: float | None = None
        self.prompt_logprobs: list[TokenLogprobs | None] | None = None if message.sampling.prompt_logprobs is None else [None]

    @property
    def known(self) -> np.ndarray:
        """int32 [num_tokens], prompt and answer; a view."""
        return self.tokens[: self.num_tokens]

    @property
    def decoding(self) -> bool:
        """Whether exactly its newest token, one of the answer, is left to compute."""
        return self.num_tokens - self.num_computed == 1 and self.num_computed >= self.num_prompt

    def row_start(self) -> RowStart:
        """What the device's row is told when the request takes it."""
        terms = self.terms
        return RowStart(self.row, self.known, self.num_prompt, self.sampling, self.sample_index, terms.seed, terms.eos_token_ids)

    def score(self, start: int, entries: list[TokenLogprobs]) -> None:
        """Keep the logprobs of the prompt's positions from ``start``; the same ones again, after a preemption, change nothing."""
        if self.prompt_logprobs is not None:
            self.prompt_logprobs[start : start + len(entries)] = entries

    def accept(self, tokens: list[int], logprobs: list[TokenLogprobs] | None) -> EngineOutput:
        """Take what a step made: tokens up to the first that ends the request; what follows it is dropped."""
        first = self.num_tokens == self.num_prompt
        stops, least = self.terms.stops, self.num_prompt + self.sampling.min_tokens
        finish, stop = None, None
        for used, token in enumerate(tokens, 1):
            self.tokens[self.num_tokens] = token
            self.num_tokens += 1
            if token in stops and self.num_tokens > least:
                finish, stop = FinishReason.STOP, token
            elif self.num_tokens == self.limit:
                finish = FinishReason.LENGTH
            if finish is not None:
                tokens, logprobs = tokens[:used], logprobs[:used] if logprobs else logprobs
                break
        self.newest = token
        if not first:
            return EngineOutput(self.id, tokens, finish, stop, None, logprobs)
        scored, self.prompt_logprobs = self.prompt_logprobs, None
        if scored is not None:  # told once: after a preemption the prompt need not be scored again
            self.sampling = msgspec.structs.replace(self.sampling, prompt_logprobs=None)
        waited = None if self.started is None else self.started - self.arrival
        return EngineOutput(self.id, tokens, finish, stop, None, logprobs, self.num_cached, waited, scored)
