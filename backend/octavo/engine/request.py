"""``Request``: one sequence in the engine, from arrival to its end. Knows what it asked for and when to stop; nothing of others."""

from math import inf
from typing import NamedTuple

import numpy as np

from octavo.engine.follower import Match
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
    """The state of one request that changes seldom; what every step changes lies in the ``RowTable``.

    ``tokens``: int32, prompt and answer when it last began to wait; while it has a row, the row knows more. A request that waits
    has no row, no page and nothing computed. ``num_keyed``: how many of its first pages others can find. ``answered``: whether its
    first token has been told. ``match``: what its answer has to follow, None if it is free. ``bad_words``: what is never written.
    """

    __slots__ = (
        "answered", "arrival", "bad_words", "cache_salt", "client", "deadline", "id", "keys", "match", "num_cached", "num_keyed",
        "num_prompt", "order", "pages", "priority", "prompt_logprobs", "row", "sample_index", "sampling", "started", "terms",
        "tokens",
    )  # fmt: skip

    def __init__(self, client: bytes, message: EngineRequest, prompt: np.ndarray, terms: Terms, arrival: float) -> None:
        """``prompt``: int [n] token ids. ``arrival``: seconds on the scheduler's clock."""
        self.client = client
        self.id = message.id
        self.sampling = message.sampling
        self.sample_index = message.sample_index
        self.priority = message.priority
        self.cache_salt = message.cache_salt
        self.bad_words = message.bad_words
        self.terms = terms
        self.arrival = arrival
        self.deadline = inf if message.queue_timeout is None else arrival + message.queue_timeout
        self.order: tuple[int, int] = (0, 0)
        self.num_prompt = len(prompt)
        self.tokens = prompt.astype(np.int32)
        self.answered = False
        self.match: Match | None = None
        self.row = NO_ROW
        self.pages: list[int] = []
        self.keys: list[bytes] = []
        self.num_cached = 0
        self.num_keyed = 0
        self.started: float | None = None
        self.prompt_logprobs: list[TokenLogprobs | None] | None = None if message.sampling.prompt_logprobs is None else [None]

    @property
    def ready(self) -> bool:
        """Whether it may go on: it is free, or what may come next is known."""
        return self.match is None or self.match.ready

    def row_start(self) -> RowStart:
        """What the device's row is told when the request takes it. A prompt that has been scored is not scored again."""
        terms = self.terms
        scored = self.prompt_logprobs is not None
        return RowStart(
            self.row, self.tokens, self.num_prompt, self.sampling, self.sample_index, terms.seed, terms.eos_token_ids, scored
        )

    def score(self, start: int, entries: list[TokenLogprobs]) -> None:
        """Keep the logprobs of the prompt's positions from ``start``; the same ones again, after a preemption, change nothing."""
        if self.prompt_logprobs is not None:
            self.prompt_logprobs[start : start + len(entries)] = entries

    def answer(self, token: int, length: int, logprobs: TokenLogprobs | None) -> EngineOutput:
        """What to tell of ``token``, which makes the request ``length`` tokens long."""
        finish, stop = None, None
        if token in self.terms.stops and length > self.num_prompt + self.sampling.min_tokens:
            finish, stop = FinishReason.STOP, token
        elif length == self.terms.limit:
            finish = FinishReason.LENGTH
        entries = None if logprobs is None else [logprobs]
        if self.answered:
            return EngineOutput(self.id, [token], finish, stop, None, entries)
        self.answered = True
        scored, self.prompt_logprobs = self.prompt_logprobs, None
        waited = None if self.started is None else self.started - self.arrival
        return EngineOutput(self.id, [token], finish, stop, None, entries, self.num_cached, waited, scored)
