"""``Scheduler``: which request computes how many tokens in the next step. Knows tokens and pages by number; no tensor, no socket.

One rule serves prefill, chunks, prefix hits and preemption alike: ``num_computed`` catches up with ``num_tokens``, and a step
hands out at most ``max_num_batched_tokens``. (The idea is vLLM v1's.)
"""

from bisect import insort
from collections import defaultdict
from collections.abc import Iterable
from math import inf
from operator import attrgetter

from octavo.config import EngineConfig, SchedulingPolicy
from octavo.engine.admission import Admission
from octavo.engine.assembly import Plan, StepAssembly
from octavo.engine.messages import EngineInfo, EngineOutput, EngineRequest, EngineStats, FinishReason
from octavo.engine.pages import PagePool
from octavo.engine.prefix import PrefixChain
from octavo.engine.request import NO_ROW, Request
from octavo.engine.step import RowStart, StepInput, StepOutput
from octavo.errors import ErrorFrame, InvalidRequest, OctavoError, Overloaded, QueueTimeout

Outputs = dict[bytes, list[EngineOutput]]
_order = attrgetter("order")


class Scheduler:
    """Plans steps over the requests of all front ends and takes their results.

    - ``waiting`` and ``running`` are sorted, most important first: by arrival, or under ``PRIORITY`` by (priority, arrival).
    - A running request has a row, and pages for all its known tokens; a waiting one has neither.
    - At most ``max_num_batched_tokens`` run: one starts only when a token of the budget is left by those that do.
    - When pages run out the least important running request starts over, so the most important one always gets on.
    - A full page is remembered as soon as it is planned: a step writes all its keys and values before it reads any, so even
      requests that start in the same step share a prefix.
    - A page given back may be taken at once, because the step that last read it has ended.
    """

    def __init__(self, config: EngineConfig, info: EngineInfo) -> None:
        """An idle scheduler over ``info.num_pages`` pages."""
        self.pool = PagePool(info.num_pages)
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self._requests: dict[tuple[bytes, int], Request] = {}
        self._rows: list[Request | None] = [None] * config.max_num_seqs
        self._free_rows = list(range(config.max_num_seqs - 1, -1, -1))
        self._admission = Admission(config, info)
        self._chain = PrefixChain(info.page_size)
        self._assembly = StepAssembly(config.max_num_seqs, -(-info.max_model_len // info.page_size))
        self._page_size = info.page_size
        self._budget = config.max_num_batched_tokens
        self._chunked = config.enable_chunked_prefill
        self._caching = config.enable_prefix_caching
        self._by_priority = config.scheduling_policy is SchedulingPolicy.PRIORITY
        self._max_waiting = config.max_queue_size
        self._next_deadline = inf
        self._arrivals = 0
        self._outputs: Outputs = defaultdict(list)
        self._steps = self._preemptions = self._prefix_queries = self._prefix_hits = 0
        self._prompt_tokens = self._generation_tokens = 0

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do until a request arrives."""
        return not self._requests

    def submit(self, client: bytes, message: EngineRequest, now: float) -> None:
        """Take a request, or answer it with the reason why not. ``now``: seconds, the same clock for all calls."""
        try:
            self._enqueue(client, message, now)
        except OctavoError as error:
            self.refuse(client, message.id, error)

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
        insort(self.waiting, request, key=_order)
        self._next_deadline = min(self._next_deadline, request.deadline)

    def refuse(self, client: bytes, request_id: int, error: OctavoError) -> None:
        """Answer a request with ``error`` alone."""
        self._outputs[client].append(EngineOutput(request_id, finish=FinishReason.ERROR, error=ErrorFrame.of(error)))

    def abort(self, client: bytes, request_ids: Iterable[int]) -> None:
        """End these requests without an answer and give back all they hold; unknown ids are ignored."""
        for request_id in request_ids:
            request = self._requests.pop((client, request_id), None)
            if request is None:
                continue
            if request.row == NO_ROW:
                self.waiting.remove(request)
            else:
                self.running.remove(request)
                self._release(request)

    def abort_front_end(self, client: bytes) -> None:
        """End all requests of one front end."""
        self.abort(client, [request_id for owner, request_id in self._requests if owner == client])

    def clients(self) -> set[bytes]:
        """The front ends that have open requests."""
        return {client for client, _ in self._requests}

    def refuse_all(self, error: OctavoError) -> None:
        """The engine is done for: answer every open request with ``error`` and leave the rest as it is."""
        for client, request_id in self._requests:
            self.refuse(client, request_id, error)

    def collect(self) -> Outputs:
        """What there is to tell each front end since the last call."""
        outputs, self._outputs = self._outputs, defaultdict(list)
        return outputs

    def schedule(self, now: float) -> StepInput | None:
        """Plan the next step; None if nothing can be computed."""
        if now >= self._next_deadline:
            self._expire(now)
        self._make_room()
        decodes = [request for request in self.running if request.decoding]
        plan = Plan([], decodes, [])
        for request in decodes:
            self._advance(request, 1)
        left = self._plan_chunks(plan, self._budget - len(decodes))
        self._plan_newcomers(plan, left, now)
        if not plan.decodes and not plan.chunks:
            return None
        self._steps += 1
        return self._assembly.build(plan, self._page_size)

    def _expire(self, now: float) -> None:
        for request in [request for request in self.waiting if request.deadline <= now]:
            self.refuse(request.client, request.id, QueueTimeout("Request timeout expired"))
            self.abort(request.client, [request.id])
        self._next_deadline = min((request.deadline for request in self.waiting), default=inf)

    def _make_room(self) -> None:
        """Give every running request pages for its known tokens, preempting from the end."""
        at = 0
        while at < len(self.running):
            request = self.running[at]
            if request.num_tokens > request.capacity:
                missing = -(-(request.num_tokens - request.capacity) // self._page_size)
                if missing > self.pool.available:
                    self._preempt(self.running.pop())
                    continue
                self._extend(request, self.pool.take(missing))
            at += 1

    def _preempt(self, request: Request) -> None:
        self._release(request)
        insort(self.waiting, request, key=_order)
        self._preemptions += 1

    def _plan_chunks(self, plan: Plan, left: int) -> int:
        """Hand ``left`` tokens to running requests that still compute their known ones; returns what newcomers may have."""
        for request in self.running:
            count = min(request.num_tokens - request.num_computed, left)
            if count:
                self._advance(request, count)
                plan.chunks.append((request, count))
                left -= count
        return left

    def _plan_newcomers(self, plan: Plan, left: int, now: float) -> None:
        """Start waiting requests in order while budget, rows and pages last."""
        while left and self.waiting and self._free_rows:
            request = self.waiting[0]
            shared = self._find_prefix(request)
            count = self._first_portion(request.num_tokens - len(shared) * self._page_size, left)
            if count == 0 or not self._fits(request, shared):
                return
            del self.waiting[0]
            plan.starts.append(self._start(request, shared, now))
            self._advance(request, count)
            plan.chunks.append((request, count))
            left -= count

    def _first_portion(self, pending: int, left: int) -> int:
        """How many of ``pending`` tokens to start with, of ``left`` in the budget.

        Without chunked prefill it is all or nothing, except for a preempted request that has outgrown a whole step.
        """
        whole_or_nothing = not self._chunked and pending <= self._budget
        return 0 if whole_or_nothing and pending > left else min(pending, left)

    def _find_prefix(self, request: Request) -> list[int]:
        """Pages that already hold the beginning of the request; never all of it, because the last token's logits are needed."""
        if not self._caching or request.sampling.prompt_logprobs is not None:
            return []
        self._chain.extend(request.keys, request.cache_salt, request.known)
        return self.pool.find(request.keys[: (request.num_tokens - 1) // self._page_size])

    def _fits(self, request: Request, shared: list[int]) -> bool:
        """Whether there are pages for all known tokens and, beside others, for one more page of everybody's.

        The reserve keeps a newcomer from being preempted as soon as it has started.
        """
        needed = -(-request.num_tokens // self._page_size) - len(shared) + self.pool.count_idle(shared)
        reserve = len(self.running) + 1 if self.running else 0
        return needed + reserve <= self.pool.available

    def _start(self, request: Request, shared: list[int], now: float) -> RowStart:
        """Give a request its row and all its pages."""
        self.pool.share(shared)
        request.row = self._free_rows.pop()
        self._rows[request.row] = request
        request.num_computed = len(shared) * self._page_size
        new = -(-request.num_tokens // self._page_size) - len(shared)
        self._extend(request, [*shared, *self.pool.take(new)])
        insort(self.running, request, key=_order)
        if request.started is None:
            request.started, request.deadline = now, inf
            request.num_cached = request.num_computed
            self._prefix_queries += request.num_prompt
            self._prefix_hits += request.num_cached
        return request.row_start()

    def _extend(self, request: Request, pages: list[int]) -> None:
        self._assembly.set_pages(request.row, len(request.pages), pages)
        request.pages += pages
        request.capacity = len(request.pages) * self._page_size

    def _advance(self, request: Request, count: int) -> None:
        """Count tokens as computed and let others find the pages that they fill."""
        full = request.num_computed // self._page_size
        request.num_computed += count
        now_full = request.num_computed // self._page_size
        if now_full > full and self._caching:
            self._chain.extend(request.keys, request.cache_salt, request.tokens[: request.num_computed])
            for at in range(full, now_full):
                self.pool.remember(request.pages[at], request.keys[at])

    def update(self, step: StepInput, output: StepOutput) -> None:
        """Take what the step made: deliver tokens, end requests."""
        for at, entries in output.prompt_logprobs.items():
            scored = self._rows[step.rows[at]]
            if scored is not None:
                scored.score(int(step.context_lens[at] - step.query_lens[at]) + 1, entries)
        ended = False
        for at, (row, tokens) in enumerate(zip(step.rows.tolist(), output.token_ids, strict=True)):
            request = self._rows[row]
            if not tokens or request is None:
                continue
            ended |= self._deliver(request, request.accept(tokens, output.logprobs.get(at)))
        if ended:
            self.running = [request for request in self.running if request.row != NO_ROW]

    def _deliver(self, request: Request, output: EngineOutput) -> bool:
        """Queue an output for its front end; whether it was the last."""
        self._outputs[request.client].append(output)
        self._generation_tokens += len(output.token_ids)
        if output.num_cached_tokens is not None:
            self._prompt_tokens += request.num_prompt
        if output.finish is None:
            return False
        del self._requests[request.client, request.id]
        self._release(request)
        return True

    def _release(self, request: Request) -> None:
        """Take a request's row and pages from it."""
        self._assembly.clear_row(request.row, len(request.pages))
        self._rows[request.row] = None
        self._free_rows.append(request.row)
        self.pool.give(request.pages)
        request.row, request.pages, request.capacity, request.num_computed = NO_ROW, [], 0, 0

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
        assert all(self._rows[row] is request for row, request in rows.items()), "a row names the wrong request"
        assert sorted([*rows, *self._free_rows]) == list(range(len(self._rows))), "a row is lost"
        assert not any(r.row != NO_ROW or r.pages or r.num_computed for r in self.waiting), "a waiting request holds something"
        assert {id(r) for r in self._requests.values()} == {id(r) for r in (*self.running, *self.waiting)}, "a request is lost"
        for queue in (self.running, self.waiting):
            assert queue == sorted(queue, key=_order), "a queue is out of order"
