"""Whatever arrives in whatever order: no page lost or owned twice, nobody starved, and every answer as if it were alone."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from octavo.config import SchedulingPolicy
from octavo.engine.messages import EngineOutput, EngineRequest, FinishReason
from octavo.engine.scheduler import Scheduler
from octavo.errors import ErrorKind

from .fakes import FakeRunner, Pipeline, expected_answer, make_config, make_info, make_request, outputs_of

CLIENTS = (b"1.1", b"2.1")
PREFIXES = ([1] * 8, [1] * 5 + [2] * 7, [3, 4, 5, 6] * 5, [])
MOST_STEPS = 2_000
RESTS = st.sampled_from([[0], [0, 0, 0, 0]]) | st.lists(st.integers(0, 3), min_size=1, max_size=12)
PROMPTS = st.builds(lambda prefix, rest: [*prefix, *rest], st.sampled_from(PREFIXES), RESTS)
OPTIONS = st.fixed_dictionaries(
    {
        "max_tokens": st.sampled_from([None, 4, 9, 17, 24]),
        "min_tokens": st.sampled_from([0, 0, 3]),
        "stop_token_ids": st.sampled_from([(), (), (11, 12)]),
        "priority": st.integers(0, 2),
        "cache_salt": st.sampled_from(["", "", "x"]),
        "queue_timeout": st.sampled_from([None, None, None, 2, 5]),
        "sample_index": st.integers(0, 1),
        "ignore_eos": st.booleans(),
        "prompt_logprobs": st.sampled_from([None, None, None, 0]),
        "logprobs": st.sampled_from([None, 0]),
    }
)
REQUESTS = st.tuples(PROMPTS, OPTIONS)


class SchedulerMachine(RuleBasedStateMachine):
    """Two front ends over one scheduler; ``FakeRunner`` checks every row's context before every token it makes."""

    @initialize(
        pool=st.sampled_from([(44, 1), (20, 2), (32, 2), (12, 4), (16, 4), (40, 4)]),
        rows=st.integers(2, 6),
        budget=st.sampled_from([40, 4, 9]),
        chunked=st.sampled_from([True, True, False]),
        caching=st.booleans(),
        policy=st.sampled_from(SchedulingPolicy),
        device=st.sampled_from([(0, 0), (0, 1), (0, 1), (0, 2), (2, 0)]),
        max_queue=st.sampled_from([1000, 3]),
    )
    def start(self, pool, rows, budget, chunked, caching, policy, device, max_queue):
        self.config = make_config(
            max_num_seqs=rows,
            max_num_batched_tokens=budget,
            enable_chunked_prefill=chunked,
            enable_prefix_caching=caching,
            scheduling_policy=policy,
            max_queue_size=max_queue,
        )
        self.info = make_info(*pool, max_model_len=48)
        self.scheduler = Scheduler(self.config, self.info)
        self.pipeline = Pipeline(self.scheduler, FakeRunner(self.info, *device))
        self.now = 0.0
        self.open: dict[tuple[bytes, int], EngineRequest] = {}
        self.heard: dict[tuple[bytes, int], list[EngineOutput]] = {}
        self.last_id = 0

    @rule(client=st.sampled_from(CLIENTS), burst=st.lists(REQUESTS, min_size=2, max_size=6), steps=st.integers(1, 6))
    def submit(self, client, burst, steps):
        for prompt, options in burst:
            self.last_id += 1
            request = make_request(self.last_id, prompt, **options)
            self.open[client, request.id] = request
            self.heard[client, request.id] = []
            self.scheduler.submit(client, request, self.now)
        self.steps(steps)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def abort(self, data):
        client, request_id = data.draw(st.sampled_from(sorted(self.open)))
        self.listen()
        self.scheduler.abort(client, [request_id, 10**6])
        self.open.pop((client, request_id), None)

    @precondition(lambda self: len(self.open) > 8)
    @rule(client=st.sampled_from(CLIENTS))
    def front_end_gone(self, client):
        self.listen()
        self.scheduler.abort_front_end(client)
        self.open = {key: request for key, request in self.open.items() if key[0] != client}

    @rule(steps=st.integers(1, 12))
    def steps(self, steps):
        for _ in range(steps):
            self.step()

    def step(self):
        self.now += 0.5
        step = self.pipeline.step(self.now)
        if step is not None:
            assert step.query_lens.sum() <= self.config.max_num_batched_tokens
        self.scheduler.check_integrity()
        self.listen()
        return step is not None or not self.scheduler.idle

    def listen(self):
        for client, frame in self.scheduler.collect().items():
            for output in outputs_of(frame):
                request = self.open[client, output.id]
                heard = self.heard[client, output.id]
                heard.append(output)
                if output.finish is not None:
                    del self.open[client, output.id]
                    self.check_answer(request, heard)

    def check_answer(self, request, heard):
        last = heard[-1]
        if last.error is not None:
            assert len(heard) == 1, "a request that had started was refused"
            late = {ErrorKind.QUEUE_TIMEOUT} if request.queue_timeout is not None else set()
            allowed = {ErrorKind.INVALID_REQUEST} if self.never_fits(request) else late
            assert last.error.kind in allowed | ({ErrorKind.OVERLOADED} if self.config.max_queue_size == 3 else set())
            return
        assert not self.never_fits(request)
        tokens, finish = expected_answer(request, self.info)
        assert [token for output in heard for token in output.token_ids] == tokens
        assert last.finish == finish
        assert last.stop_token_id == (tokens[-1] if finish is FinishReason.STOP else None)
        if request.sampling.logprobs is not None:
            assert [entry.token_ids[0] for output in heard for entry in output.logprobs or []] == tokens
        self.check_first_output(request, heard)

    def never_fits(self, request):
        prompt, pool = len(request.prompt_token_ids), self.info.num_pages * self.info.page_size
        limit = min(self.info.max_model_len, prompt + (request.sampling.max_tokens or 1))
        too_long = prompt >= self.info.max_model_len or limit - 1 > pool
        return too_long or (not self.config.enable_chunked_prefill and prompt > self.config.max_num_batched_tokens)

    def check_first_output(self, request, heard):
        assert all(output.num_cached_tokens is None for output in heard[1:])
        assert heard[0].num_cached_tokens is not None and heard[0].num_cached_tokens < len(request.prompt_token_ids)
        if request.sampling.prompt_logprobs is not None:
            first, *others = heard[0].prompt_logprobs or []
            assert first is None and [entry.token_ids[0] for entry in others] == request.prompt_token_ids[1:]

    @invariant()
    def consistent(self):
        if hasattr(self, "scheduler"):
            self.scheduler.check_integrity()

    def teardown(self):
        """Arrivals have ended: everyone still open must be answered, and everything must be given back."""
        if not hasattr(self, "scheduler"):
            return
        self.listen()
        for _ in range(MOST_STEPS):
            if not self.step():
                break
        assert not self.open and self.scheduler.idle, "a request is starved"
        assert self.scheduler.pool.used == 0


def test_scheduler_machine() -> None:
    run_state_machine_as_test(
        SchedulerMachine,
        settings=settings(
            max_examples=100,
            stateful_step_count=20,
            derandomize=True,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_scheduler_machine_long() -> None:
    run_state_machine_as_test(
        SchedulerMachine,
        settings=settings(max_examples=2000, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)),
    )
