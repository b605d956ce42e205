"""``Scheduler``: which request computes how many tokens in the next step. Knows tokens and pages by number; no tensor, no socket.

One rule serves prefill, chunks, prefix hits and preemption alike: ``num_computed`` catches up with ``num_tokens``, and a step
hands out at most ``max_num_batched_tokens``. (The idea is vLLM v1's.)
"""

from bisect import bisect_left, insort
from collections.abc import Iterable
from math import inf
from operator import attrgetter

import numpy as np

from octavo.config import EngineConfig, SchedulingPolicy
from octavo.engine.admission import Admission
from octavo.engine.assembly import Plan, StepAssembly
from octavo.engine.grammars import Grammars
from octavo.engine.matches import Matches
from octavo.engine.messages import EngineInfo, EngineRequest, EngineStats, TokenLogprobs
from octavo.engine.outbox import Outbox, Outputs
from octavo.engine.pacing import ChunkPacer
from octavo.engine.pages import PagePool
from octavo.engine.prefix import PrefixChain
from octavo.engine.request import NO_ROW, Request
from octavo.engine.rows import RowTable
from octavo.engine.step import Masks, RowStart, StepInput, StepOutput
from octavo.errors import InvalidRequest, OctavoError, Overloaded, QueueTimeout

_order = attrgetter("order")
_NEVER = np.iinfo(np.int64).max


class Scheduler:
    """Plans steps over the requests of all front ends and takes their results, in order but not necessarily at once.

    - ``waiting`` and ``running`` are sorted, most important first: by arrival, or under ``PRIORITY`` by (priority, arrival).
    - A running request has a row, and pages for all its known tokens; a waiting one has neither.
    - At most ``max_num_batched_tokens`` run: one starts only when a token of the budget is left by those that do.
    - When pages run out the least important running request starts over, so the most important one always gets on.
    - Steps may be planned while others are in flight: a row then decodes a token that only the device knows. What a step makes
      for a request that has ended or started over meanwhile is dropped.
    - A full page of known tokens is remembered as soon as it is planned: a step writes all its keys and values before it reads
      any, so even requests that start in the same step share a prefix.
    - What follows a grammar is planned as all else: what may come next is asked for once the newest token is known, and waited for
      when the step's own tokens are to be drawn (``masks``). Whom that waits for in vain starts over.
    - A page given back may be taken at once: steps run in the order of their planning, so whoever still writes to it in flight
      does so before its next owner.
    """

    def __init__(self, config: EngineConfig, info: EngineInfo) -> None:
        """An idle scheduler over ``info.num_pages`` pages."""
        self.pool = PagePool(info.num_pages)
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self._requests: dict[tuple[bytes, int], Request] = {}
        self._owners: list[Request | None] = [None] * config.max_num_seqs
        self._free_rows = list(range(config.max_num_seqs - 1, -1, -1))
        self._table = RowTable(config.max_num_seqs, info.max_model_len, info.vocab_size)
        self._stuck: Request | None = None  # the one for which there was no room; nobody has started or left since
        self.matches = Matches(Grammars(config, info), self._table)
        self.pacer = None if config.itl_target_ms is None else ChunkPacer(config.itl_target_ms / 1e3)
        self._admission = Admission(config, info)
        self._chain = PrefixChain(info.page_size)
        self._assembly = StepAssembly()
        self._page_size = info.page_size
        self._budget = config.max_num_batched_tokens
        self._chunked = config.enable_chunked_prefill
        self._caching = config.enable_prefix_caching
        self._by_priority = config.scheduling_policy is SchedulingPolicy.PRIORITY
        self._max_waiting = config.max_queue_size
        self._next_deadline = inf
        self._arrivals = 0
        self._outbox = Outbox()
        self._steps = self._preemptions = self._prefix_queries = self._prefix_hits = 0
        self._prompt_tokens = self._generation_tokens = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do until a request arrives."""
        return not self._requests

    def patience(self, now: float) -> float:
        """Seconds until the next request's time in the queue is over, at most an hour."""
        return min(max(self._next_deadline - now, 0.0), 3600.0)

    def submit(self, client: bytes, message: EngineRequest, now: float) -> None:
        """Take a request, or answer it with the reason why not. ``now``: seconds, the same clock for all calls."""
        try:
            self._enqueue(client, message, now)
        except OctavoError as error:
            self._outbox.refuse(client, message.id, error)

    def _enqueue(self, client: bytes, message: EngineRequest, now: float) -> None:
        key = client, message.id
        if key in self._requests:
            raise InvalidRequest(f"The request id {message.id} is in use.")
        # Whoever will find a free row in the next step does not count as queued.
        if len(self.waiting) - len(self._free_rows) >= self._max_waiting:
            raise Overloaded("Exceeds maximum queue size")
        request = self._admission.admit(client, message, now)
        request.order = (request.priority if self._by_priority else 0, self._arrivals)
        self._arrivals += 1
        self._requests[key] = request
        self.matches.begin(request, key, message.thoughts)
        insort(self.waiting, request, key=_order)
        self._next_deadline = min(self._next_deadline, request.deadline)

    def abort(self, client: bytes, request_ids: Iterable[int]) -> None:
        """End these requests without an answer and give back all they hold; unknown ids are ignored."""
        for request_id in request_ids:
            request = self._requests.pop((client, request_id), None)
            if request is None:
                continue
            self.matches.end(request)
            if request.row == NO_ROW:
                self.waiting.remove(request)
            else:
                self._release(request)

    def abort_front_end(self, client: bytes) -> int:
        """End all requests of one front end, and count them."""
        request_ids = [request_id for owner, request_id in self._requests if owner == client]
        self.abort(client, request_ids)
        return len(request_ids)

    def clients(self) -> set[bytes]:
        """The front ends that have open requests."""
        return {client for client, _ in self._requests}

    def refuse_all(self, error: OctavoError) -> None:
        """The engine is done for: answer every open request with ``error`` and leave the rest as it is."""
        for client, request_id in self._requests:
            self._outbox.refuse(client, request_id, error)

    def collect(self) -> Outputs:
        """What there is to tell each front end since the last call."""
        return self._outbox.empty()

    def schedule(self, now: float) -> StepInput | None:
        """Plan the next step; None if nothing can be computed before a step in flight has ended."""
        if now >= self._next_deadline:
            self._expire(now)
        for (client, request_id), error in self.matches.failures(now):
            self._outbox.refuse(client, request_id, InvalidRequest(error))
            self.abort(client, [request_id])
        left = self._make_room()
        table, decoding = self._table, self._table.decoding(left)
        table.num_computed += decoding
        plan = Plan([], decoding.nonzero()[0], [])
        budget = self._budget - len(plan.decodes)
        if self.pacer is not None and len(plan.decodes):
            budget = min(budget, self.pacer.limit)
        if np.count_nonzero(left) > len(plan.decodes):
            for request, known in self._in_order((~decoding & (left > 0)).nonzero()[0], left):
                budget -= self._compute(plan, request, min(known, budget))
        self._plan_newcomers(plan, budget, now)
        if not len(plan.decodes) and not plan.chunks:
            return None
        self._steps += 1
        step = self._assembly.build(plan, table)
        table.launch(step, decoding)
        return step

    def _expire(self, now: float) -> None:
        for request in [request for request in self.waiting if request.deadline <= now]:
            self._outbox.refuse(request.client, request.id, QueueTimeout("Request timeout expired"))
            self.abort(request.client, [request.id])
        self._next_deadline = min((request.deadline for request in self.waiting), default=inf)

    def masks(self, step: StepInput) -> Masks:
        """What may come next in some rows of ``step``; all steps before it have been taken.

        A row for which that takes too long has no owner from now on, so what is drawn for it is dropped.
        """
        for request in self.matches.wait(step):
            self._preempt(request)
        return self.matches.masks(step)

    def _make_room(self) -> np.ndarray:
        """Give every running request pages for all it has to compute, preempting from the end; see ``RowTable.left``."""
        table = self._table
        left = table.left()
        lack = table.num_computed + left - table.capacity
        short = (lack > 0).nonzero()[0]
        if not len(short):
            return left
        before = self._preemptions
        for request, tokens in self._in_order(short, lack):
            missing = -(-tokens // self._page_size)
            while request.row != NO_ROW and missing > self.pool.available:
                self._preempt(self.running[-1])
            if request.row != NO_ROW:
                self._extend(request, self.pool.take(missing))
        return left if self._preemptions == before else table.left()

    def _in_order(self, rows: np.ndarray, counts: np.ndarray) -> list[tuple[Request, int]]:
        """The owners of ``rows``, most important first, each with its entry in ``counts``, which has one for every row."""
        owners = zip((self._owners[row] for row in rows.tolist()), counts[rows].tolist(), strict=True)
        return sorted(owners, key=lambda pair: pair[0].order)

    def _preempt(self, request: Request) -> None:
        request.tokens = self._table.known(request.row).copy()
        self._release(request)
        insort(self.waiting, request, key=_order)
        self._preemptions += 1

    def _compute(self, plan: Plan, request: Request, count: int) -> int:
        """Plan ``count`` of the request's known tokens, and say so."""
        if count:
            row, table = request.row, self._table
            table.num_computed[row] += count
            plan.chunks.append((row, count))
            if self._caching:
                self._remember(request, int(min(table.num_computed[row], table.num_tokens[row])))
        return count

    def _plan_newcomers(self, plan: Plan, budget: int, now: float) -> None:
        """Start waiting requests in order while budget, rows and pages last."""
        while budget and self._free_rows:
            place = next((place for place, request in enumerate(self.waiting) if request.ready), None)
            if place is None:
                return
            request = self.waiting[place]
            if request is self._stuck:
                return
            shared = self._find_prefix(request)
            count = self._first_portion(len(request.tokens) - len(shared) * self._page_size, budget)
            if count == 0:
                return
            if not self._fits(request, shared):
                self._stuck = request
                return
            del self.waiting[place]
            plan.starts.append(self._start(request, shared, now))
            budget -= self._compute(plan, request, count)

    def _first_portion(self, pending: int, left: int) -> int:
        """How many of ``pending`` tokens to start with, of ``left`` in the budget.

        Without chunked prefill it is all or nothing, except for a preempted request that has outgrown a whole step.
        """
        whole_or_nothing = not self._chunked and pending <= self._budget
        return 0 if whole_or_nothing and pending > left else min(pending, left)

    def _find_prefix(self, request: Request) -> list[int]:
        """Pages that already hold the beginning of the request; never all of it, because the last token's logits are needed."""
        if not self._caching or request.prompt_logprobs is not None:
            return []
        self._chain.extend(request.keys, request.cache_salt, request.tokens)
        return self.pool.find(request.keys[: (len(request.tokens) - 1) // self._page_size])

    def _fits(self, request: Request, shared: list[int]) -> bool:
        """Whether there are pages for all known tokens and, beside others, for one more page of everybody's.

        The reserve keeps a newcomer from being preempted as soon as it has started.
        """
        needed = -(-len(request.tokens) // self._page_size) - len(shared) + self.pool.count_idle(shared)
        reserve = len(self.running) + 1 if self.running else 0
        return needed + reserve <= self.pool.available

    def _start(self, request: Request, shared: list[int], now: float) -> RowStart:
        """Give a request its row and all its pages."""
        self.pool.share(shared)
        request.row = self._free_rows.pop()
        self._owners[request.row] = request
        self.matches.start(request)
        cached = len(shared) * self._page_size
        self._table.start(request, self._outbox.number(request.client), cached)
        request.num_keyed = len(shared)
        self._table.fills_at[request.row] = cached + self._page_size if self._caching else _NEVER
        new = -(-len(request.tokens) // self._page_size) - len(shared)
        self._extend(request, [*shared, *self.pool.take(new)])
        insort(self.running, request, key=_order)
        self._stuck = None
        if request.started is None:
            request.started, request.deadline = now, inf
            request.num_cached = cached
            self._prefix_queries += request.num_prompt
            self._prefix_hits += cached
        return request.row_start()

    def _extend(self, request: Request, pages: list[int]) -> None:
        self._assembly.set_pages(request.row, len(request.pages), pages)
        request.pages += pages
        self._table.capacity[request.row] = len(request.pages) * self._page_size

    def _remember(self, request: Request, known: int) -> None:
        """Let others find the pages that the request's first ``known`` tokens have filled."""
        full = known // self._page_size
        if full > len(request.keys):
            self._chain.extend(request.keys, request.cache_salt, self._table.tokens[request.row, :known])
        for place in range(request.num_keyed, full):
            self.pool.remember(request.pages[place], request.keys[place])
        request.num_keyed = full
        self._table.fills_at[request.row] = (full + 1) * self._page_size

    def update(self, step: StepInput, output: StepOutput) -> None:
        """Take what the oldest step in flight made: deliver tokens, end requests."""
        with self._table.landing() as in_flight:
            for at, entries in output.prompt_logprobs.items():
                request = self._owners[step.rows[at]]
                if request is not None and in_flight.rows[step.rows[at]]:
                    request.score(int(step.context_lens[at] - step.query_lens[at]) + 1, entries)
            for nth, tokens in enumerate(output.token_ids.T):
                places = (in_flight.yielding[step.rows] & (tokens >= 0)).nonzero()[0]
                self._deliver(step.rows[places], tokens[places], places, nth, output)

    def _deliver(self, rows: np.ndarray, tokens: np.ndarray, places: np.ndarray, nth: int, output: StepOutput) -> None:
        """Give each of ``rows`` its ``nth`` token of ``output``, where it stands at ``places``."""
        table = self._table
        self._generation_tokens += len(rows)
        lengths = table.append(rows, tokens)
        known = np.minimum(lengths, table.num_computed[rows])
        for at in (known >= table.fills_at[rows]).nonzero()[0].tolist():
            self._remember(self._owners[rows[at]], int(known[at]))
        special = table.special(rows, tokens, lengths) | (output.token_ids.shape[1] > 1)
        if np.count_nonzero(special):
            for at in special.nonzero()[0].tolist():
                logprobs = output.logprobs.get(int(places[at]))
                self._answer(int(rows[at]), int(tokens[at]), int(lengths[at]), None if logprobs is None else logprobs[nth])
        self.matches.advance(rows, tokens)
        if np.count_nonzero(special):
            rows, tokens = rows[~special], tokens[~special]
        self._outbox.put_tokens(table.client[rows], table.id[rows], tokens)

    def _answer(self, row: int, token: int, length: int, logprobs: TokenLogprobs | None) -> None:
        """Tell of one token all that there is to tell, and end the request if it is the last."""
        request = self._owners[row]
        assert request is not None
        first = not request.answered
        told = request.answer(token, length, logprobs)
        self._outbox.put(request.client, told)
        if first:
            self._prompt_tokens += request.num_prompt
            self._table.watch(request)
        if told.finish is not None:
            self._finish(request)

    def _finish(self, request: Request) -> None:
        del self._requests[request.client, request.id]
        self.matches.end(request)
        self._release(request)

    def _release(self, request: Request) -> None:
        """Take a running request's row and pages from it."""
        del self.running[bisect_left(self.running, request.order, key=_order)]
        self._stuck = None
        self._assembly.clear_row(request.row)
        self._table.clear(request.row)
        self._owners[request.row] = None
        self.matches.leave(request.row)
        self._free_rows.append(request.row)
        self.pool.give(request.pages)
        request.row, request.pages = NO_ROW, []

    def stats(self) -> EngineStats:
        """A reading of levels and counters. Prefix queries and hits count tokens."""
        return EngineStats(
            running=len(self.running),
            waiting=len(self.waiting),
            pages_used=self.pool.used,
            pages_total=self.pool.num_pages,
            prefix_queries=self._prefix_queries,
            prefix_hits=self._prefix_hits,
            preemptions=self._preemptions,
            steps=self._steps,
            prompt_tokens=self._prompt_tokens,
            generation_tokens=self._generation_tokens,
        )

    def lengths(self) -> list[int]:
        """How many tokens each of ``running`` has, prompt and answer so far."""
        return [int(self._table.num_tokens[request.row]) for request in self.running]

    def check_integrity(self) -> None:
        """Raise ``AssertionError`` if pages, rows and requests do not agree. For tests: O(pages)."""
        self.pool.check_integrity()
        refs = [0] * self.pool.num_pages
        for request in self.running:
            for page in request.pages:
                refs[page] += 1
        assert refs == self.pool.refs, "pages are held by nobody, or by more than the pool counts"
        rows = {request.row: request for request in self.running}
        assert len(rows) == len(self.running), "two requests share a row"
        assert all(self._owners[row] is request for row, request in rows.items()), "a row names the wrong request"
        assert sorted([*rows, *self._free_rows]) == list(range(len(self._owners))), "a row is lost"
        assert not any(request.row != NO_ROW or request.pages for request in self.waiting), "a waiting request holds something"
        table, free = self._table, self._free_rows
        assert not (table.num_tokens[free].any() or table.num_pending[free].any()), "a free row remembers its owner"
        assert (table.num_computed <= table.num_tokens + table.num_pending).all(), "more is computed than there is"
        assert {id(r) for r in self._requests.values()} == {id(r) for r in (*self.running, *self.waiting)}, "a request is lost"
        for queue in (self.running, self.waiting):
            assert queue == sorted(queue, key=_order), "a queue is out of order"
