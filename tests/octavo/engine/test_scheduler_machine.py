"""Whatever arrives in whatever order: no page lost or owned twice, nobody starved, and every answer as if it were alone."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from octavo.config import SchedulingPolicy
from octavo.engine.messages import EngineOutput, EngineRequest, FinishReason
from octavo.engine.scheduler import Scheduler
from octavo.errors import ErrorKind

from .fakes import FakeRunner, expected_answer, make_config, make_info, make_request

CLIENTS = (b"1.1", b"2.1")
PREFIXES = ([1] * 8, [1] * 5 + [2] * 7, [3, 4, 5, 6] * 5, [])
MOST_STEPS = 20_000


class SchedulerMachine(RuleBasedStateMachine):
    """Two front ends over one scheduler; ``FakeRunner`` checks every row's context before every token it makes."""

    @initialize(
        num_pages=st.integers(4, 24),
        page_size=st.sampled_from([1, 2, 4]),
        rows=st.integers(1, 6),
        budget=st.sampled_from([4, 9, 40]),
        chunked=st.booleans(),
        caching=st.booleans(),
        policy=st.sampled_from(SchedulingPolicy),
        surplus=st.sampled_from([0, 0, 2]),
        max_queue=st.sampled_from([2, 50]),
    )
    def start(self, num_pages, page_size, rows, budget, chunked, caching, policy, surplus, max_queue):
        self.config = make_config(
            max_num_seqs=rows,
            max_num_batched_tokens=budget,
            enable_chunked_prefill=chunked,
            enable_prefix_caching=caching,
            scheduling_policy=policy,
            max_queue_size=max_queue,
        )
        self.info = make_info(num_pages, page_size, max_model_len=48)
        self.scheduler = Scheduler(self.config, self.info)
        self.runner = FakeRunner(self.info, surplus)
        self.now = 0.0
        self.open: dict[tuple[bytes, int], EngineRequest] = {}
        self.heard: dict[tuple[bytes, int], list[EngineOutput]] = {}
        self.last_id = 0

    @rule(
        client=st.sampled_from(CLIENTS),
        prefix=st.sampled_from(PREFIXES),
        rest=st.lists(st.integers(0, 3), max_size=12),
        max_tokens=st.none() | st.integers(1, 24),
        min_tokens=st.sampled_from([0, 0, 3]),
        stops=st.sampled_from([(), (), (11, 12)]),
        options=st.fixed_dictionaries(
            {
                "priority": st.integers(0, 2),
                "cache_salt": st.sampled_from(["", "", "x"]),
                "queue_timeout": st.none() | st.integers(1, 8),
                "sample_index": st.integers(0, 1),
                "ignore_eos": st.booleans(),
                "prompt_logprobs": st.sampled_from([None, None, 0]),
                "logprobs": st.sampled_from([None, 0]),
            }
        ),
    )
    def submit(self, client, prefix, rest, max_tokens, min_tokens, stops, options):
        self.last_id += 1
        least = min(min_tokens, max_tokens or min_tokens)
        request = make_request(
            self.last_id, [*prefix, *rest], max_tokens=max_tokens, min_tokens=least, stop_token_ids=stops, **options
        )
        self.open[client, request.id] = request
        self.heard[client, request.id] = []
        self.scheduler.submit(client, request, self.now)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def abort(self, data):
        client, request_id = data.draw(st.sampled_from(sorted(self.open)))
        self.listen()
        self.scheduler.abort(client, [request_id, 10**6])
        self.open.pop((client, request_id), None)

    @rule(client=st.sampled_from(CLIENTS))
    def front_end_gone(self, client):
        self.scheduler.abort_front_end(client)
        self.open = {key: request for key, request in self.open.items() if key[0] != client}

    @rule(steps=st.integers(1, 12))
    def steps(self, steps):
        for _ in range(steps):
            self.step()

    def step(self):
        self.now += 0.5
        step = self.scheduler.schedule(self.now)
        if step is not None:
            assert len(step.token_ids) <= self.config.max_num_batched_tokens
            self.scheduler.update(step, self.runner.execute(step))
        self.scheduler.check_integrity()
        self.listen()
        return step is not None

    def listen(self):
        for client, outputs in self.scheduler.collect().items():
            for output in outputs:
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
            assert last.error.kind in {ErrorKind.INVALID_REQUEST, ErrorKind.OVERLOADED, ErrorKind.QUEUE_TIMEOUT}
            assert last.error.kind != ErrorKind.QUEUE_TIMEOUT or request.queue_timeout is not None
            return
        tokens, finish = expected_answer(request, self.info)
        assert [token for output in heard for token in output.token_ids] == tokens
        assert last.finish == finish
        assert last.stop_token_id == (tokens[-1] if finish is FinishReason.STOP else None)
        if request.sampling.logprobs is not None:
            assert [entry.token_ids[0] for output in heard for entry in output.logprobs or []] == tokens
        self.check_first_output(request, heard)

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
            max_examples=120, stateful_step_count=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_scheduler_machine_long() -> None:
    run_state_machine_as_test(
        SchedulerMachine,
        settings=settings(max_examples=6000, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)),
    )
