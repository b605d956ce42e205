"""``Scheduler``: which request computes how many tokens in the next step. Knows tokens and pages by number; no tensor, no socket.

One rule serves prefill, chunks, prefix hits and preemption alike: ``num_computed`` catches up with ``num_tokens``, and a step
hands out at most ``max_num_batched_tokens``. (The idea is vLLM v1's.)
"""

from bisect import bisect_left, insort
from collections import defaultdict, deque
from collections.abc import Iterable
from math import inf
from operator import attrgetter

import numpy as np

from octavo.config import EngineConfig, SchedulingPolicy
from octavo.engine.admission import Admission
from octavo.engine.assembly import Plan, StepAssembly
from octavo.engine.grammars import Grammars
from octavo.engine.matches import Matches
from octavo.engine.messages import EngineFrame, EngineInfo, EngineOutput, EngineRequest, EngineStats, FinishReason
from octavo.engine.pacing import ChunkPacer
from octavo.engine.pages import PagePool
from octavo.engine.prefix import PrefixChain
from octavo.engine.request import NO_ROW, Request
from octavo.engine.rows import RowTable
from octavo.engine.step import RowStart, StepInput, StepOutput
from octavo.errors import ErrorFrame, InvalidRequest, OctavoError, Overloaded, QueueTimeout

Outputs = dict[bytes, EngineFrame]
_order = attrgetter("order")


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
    - What follows a grammar is planned once its newest token and what may come after it are known: no step runs ahead of it, and
      its row is held while the mask is late.
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
        self._table = RowTable(config.max_num_seqs, info.max_model_len)
        self._running_rows: np.ndarray | None = None
        self._in_flight: deque[np.ndarray] = deque()
        self.matches = Matches(Grammars(config, info), self._table)
        self._clients: list[bytes] = []
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
        self._outputs: Outputs = defaultdict(EngineFrame)
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
        self.matches.begin(request, key, message.thoughts)
        insort(self.waiting, request, key=_order)
        self._next_deadline = min(self._next_deadline, request.deadline)

    def refuse(self, client: bytes, request_id: int, error: OctavoError) -> None:
        """Answer a request with ``error`` alone."""
        self._outputs[client].outputs.append(EngineOutput(request_id, finish=FinishReason.ERROR, error=ErrorFrame.of(error)))

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
        outputs, self._outputs = self._outputs, defaultdict(EngineFrame)
        return outputs

    def schedule(self, now: float) -> StepInput | None:
        """Plan the next step; None if nothing can be computed before a step in flight has ended."""
        if now >= self._next_deadline:
            self._expire(now)
        if self.matches.unknown():
            return None
        for (client, request_id), error in self.matches.failures():
            self.refuse(client, request_id, InvalidRequest(error))
            self.abort(client, [request_id])
        self._make_room()
        rows, table = self._rows(), self._table
        left = table.left(rows)
        decoding = table.decoding(rows, left)
        plan = Plan([], rows[decoding], [])
        table.num_computed[plan.decodes] += 1
        chunked = (left > 0) & ~decoding
        budget = self._budget - len(plan.decodes)
        if self.pacer is not None and len(plan.decodes):
            budget = min(budget, self.pacer.limit)
        for row, known in zip(rows[chunked].tolist(), left[chunked].tolist(), strict=True):
            budget -= self._compute(plan, row, min(known, budget))
        self._plan_newcomers(plan, budget, now)
        if not len(plan.decodes) and not plan.chunks:
            return None
        self._steps += 1
        step = self._assembly.build(plan, table, self.matches)
        table.num_pending[step.rows[step.samples]] += 1
        self._in_flight.append(table.epoch[step.rows])
        return step

    def _rows(self) -> np.ndarray:
        """int64, the rows of ``running``, in its order."""
        if self._running_rows is None:
            self._running_rows = np.array([request.row for request in self.running], np.int64)
        return self._running_rows

    def _expire(self, now: float) -> None:
        for request in [request for request in self.waiting if request.deadline <= now]:
            self.refuse(request.client, request.id, QueueTimeout("Request timeout expired"))
            self.abort(request.client, [request.id])
        self._next_deadline = min((request.deadline for request in self.waiting), default=inf)

    def _make_room(self) -> None:
        """Give every running request pages for all it has to compute, preempting from the end."""
        rows, table = self._rows(), self._table
        needed = table.num_computed[rows] + table.left(rows)
        short = needed > table.capacity[rows]
        for row, tokens in zip(rows[short].tolist(), needed[short].tolist(), strict=True):
            request = self._owners[row]
            missing = -(-(tokens - int(table.capacity[row])) // self._page_size)
            while request is not None and missing > self.pool.available:
                self._preempt(self.running[-1])
                request = self._owners[row]
            if request is not None:
                self._extend(request, self.pool.take(missing))

    def _preempt(self, request: Request) -> None:
        request.tokens = self._table.known(request.row).copy()
        self._release(request)
        insort(self.waiting, request, key=_order)
        self._preemptions += 1

    def _compute(self, plan: Plan, row: int, count: int) -> int:
        """Plan ``count`` of the row's known tokens, and say so."""
        if count:
            self._table.num_computed[row] += count
            plan.chunks.append((row, count))
            self._remember(np.array([row]))
        return count

    def _plan_newcomers(self, plan: Plan, budget: int, now: float) -> None:
        """Start waiting requests in order while budget, rows and pages last."""
        while budget and self._free_rows:
            place = next((place for place, request in enumerate(self.waiting) if request.ready), None)
            if place is None:
                return
            request = self.waiting[place]
            shared = self._find_prefix(request)
            count = self._first_portion(len(request.tokens) - len(shared) * self._page_size, budget)
            if count == 0 or not self._fits(request, shared):
                return
            del self.waiting[place]
            plan.starts.append(self._start(request, shared, now))
            budget -= self._compute(plan, request.row, count)

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
        self._table.start(request, self._number(request.client), cached)
        self._table.num_keyed[request.row] = len(shared)
        new = -(-len(request.tokens) // self._page_size) - len(shared)
        self._extend(request, [*shared, *self.pool.take(new)])
        insort(self.running, request, key=_order)
        self._running_rows = None
        if request.started is None:
            request.started, request.deadline = now, inf
            request.num_cached = cached
            self._prefix_queries += request.num_prompt
            self._prefix_hits += cached
        return request.row_start()

    def _number(self, client: bytes) -> int:
        if client not in self._clients:
            self._clients.append(client)
        return self._clients.index(client)

    def _extend(self, request: Request, pages: list[int]) -> None:
        self._assembly.set_pages(request.row, len(request.pages), pages)
        request.pages += pages
        self._table.capacity[request.row] = len(request.pages) * self._page_size

    def _remember(self, rows: np.ndarray) -> None:
        """Let others find the pages that these rows have filled with known tokens."""
        if not self._caching:
            return
        table = self._table
        full = np.minimum(table.num_computed[rows], table.num_tokens[rows]) // self._page_size
        more = full > table.num_keyed[rows]
        for row, pages in zip(rows[more].tolist(), full[more].tolist(), strict=True):
            request = self._owners[row]
            self._chain.extend(request.keys, request.cache_salt, table.known(row)[: pages * self._page_size])
            for place in range(table.num_keyed[row], pages):
                self.pool.remember(request.pages[place], request.keys[place])
            table.num_keyed[row] = pages

    def update(self, step: StepInput, output: StepOutput) -> None:
        """Take what the oldest step in flight made: deliver tokens, end requests."""
        table = self._table
        mine = table.epoch[step.rows] == self._in_flight.popleft()
        table.num_pending[step.rows[mine & step.samples]] -= 1
        for at, entries in output.prompt_logprobs.items():
            if mine[at]:
                self._owners[step.rows[at]].score(int(step.context_lens[at] - step.query_lens[at]) + 1, entries)
        for nth, tokens in enumerate(output.token_ids.T):
            places = np.flatnonzero(mine & (tokens >= 0))
            mine[self._deliver(step.rows[places], tokens[places], places, nth, output)] = False

    def _deliver(self, rows: np.ndarray, tokens: np.ndarray, places: np.ndarray, nth: int, output: StepOutput) -> list[int]:
        """Give each of ``rows`` its ``nth`` token of ``output``, where it stands at ``places``; returns the places that ended."""
        self._generation_tokens += len(rows)
        special = self._table.append(rows, tokens) | (output.token_ids.shape[1] > 1)
        self._remember(rows)
        self._tell(rows[~special], tokens[~special])
        ended = []
        for place, row, token in zip(places[special].tolist(), rows[special].tolist(), tokens[special].tolist(), strict=True):
            request, logprobs = self._owners[row], output.logprobs.get(place)
            first = not request.answered
            told = request.answer(token, int(self._table.num_tokens[row]), None if logprobs is None else logprobs[nth])
            self._outputs[request.client].outputs.append(told)
            if first:
                self._prompt_tokens += request.num_prompt
                self._table.watch(request)
            if told.finish is not None:
                self._finish(request)
                ended.append(place)
            elif request.match is not None:
                self.matches.grammars.advance(request.match, token)
        self.matches.ask()
        return ended

    def _tell(self, rows: np.ndarray, tokens: np.ndarray) -> None:
        """One more token each, and nothing else to say."""
        clients = self._table.client[rows]
        for number in np.unique(clients).tolist():
            mine = clients == number
            frame = self._outputs[self._clients[number]]
            frame.ids.extend(self._table.id[rows[mine]].tolist())
            frame.token_ids.extend(tokens[mine].tolist())

    def _finish(self, request: Request) -> None:
        del self._requests[request.client, request.id]
        self.matches.end(request)
        self._release(request)

    def _release(self, request: Request) -> None:
        """Take a running request's row and pages from it."""
        del self.running[bisect_left(self.running, request.order, key=_order)]
        self._running_rows = None
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
        return list(self._table.num_tokens[self._rows()].tolist())

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
        assert self._rows().tolist() == [*rows], "the running rows are not those of the running requests"
        assert not any(request.row != NO_ROW or request.pages for request in self.waiting), "a waiting request holds something"
        table, free = self._table, self._free_rows
        assert not (table.num_tokens[free].any() or table.num_pending[free].any()), "a free row remembers its owner"
        assert (table.num_computed <= table.num_tokens + table.num_pending).all(), "more is computed than there is"
        assert {id(r) for r in self._requests.values()} == {id(r) for r in (*self.running, *self.waiting)}, "a request is lost"
        for queue in (self.running, self.waiting):
            assert queue == sorted(queue, key=_order), "a queue is out of order"
