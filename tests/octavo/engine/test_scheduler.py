"""What each step computes, who waits, who starts over and who is refused."""

import pytest

from octavo.config import SchedulingPolicy
from octavo.engine.messages import EngineFrame, EngineOutput, FinishReason
from octavo.engine.scheduler import Scheduler
from octavo.engine.step import StepInput
from octavo.errors import ErrorKind

from .fakes import FakeRunner, Pipeline, expected_answer, make_config, make_info, make_request, outputs_of

CLIENT = b"1.1"


class Engine:
    """A scheduler with a fake runner, stepped by hand."""

    def __init__(
        self, num_pages: int = 64, page_size: int = 4, max_model_len: int = 128, runs_ahead: int = 0, **settings: object
    ) -> None:
        self.info = make_info(num_pages, page_size, max_model_len)
        self.scheduler = Scheduler(make_config(**settings), self.info)
        self.pipeline = Pipeline(self.scheduler, FakeRunner(self.info, runs_ahead=runs_ahead))
        self.heard: dict[int, list[EngineOutput]] = {}
        self.ended: list[int] = []

    def submit(self, *args: object, now: float = 0.0, **options: object) -> None:
        self.scheduler.submit(CLIENT, make_request(*args, **{"ignore_eos": True, **options}), now)
        self.listen()

    def step(self, now: float = 0.0) -> StepInput | None:
        step = self.pipeline.step(now)
        self.scheduler.check_integrity()
        self.listen()
        return step

    def run(self) -> None:
        while self.step() is not None or not self.scheduler.idle:
            pass
        assert self.scheduler.idle and self.scheduler.pool.used == 0

    def listen(self) -> None:
        for output in outputs_of(self.scheduler.collect().get(CLIENT, EngineFrame())):
            self.heard.setdefault(output.id, []).append(output)
            self.ended += [output.id] if output.finish else []

    def tokens(self, request_id: int) -> list[int]:
        return [token for output in self.heard[request_id] for token in output.token_ids]

    def error(self, request_id: int) -> tuple[ErrorKind, str]:
        (output,) = self.heard[request_id]
        assert output.error is not None and output.finish is FinishReason.ERROR
        return output.error.kind, output.error.text


def lens(step: StepInput | None) -> list[int]:
    return [] if step is None else step.query_lens.tolist()


def test_a_long_prompt_is_chunked_and_decodes_go_on_beside_it() -> None:
    engine = Engine(max_num_batched_tokens=10)
    engine.submit(1, [1, 2, 3], max_tokens=20)
    engine.step()
    engine.submit(2, [5] * 23, max_tokens=2)
    steps = [engine.step() for _ in range(4)]
    assert [lens(step) for step in steps] == [[1, 9], [1, 9], [1, 5], [1, 1]]
    assert [step.num_decodes for step in steps if step] == [1, 1, 1, 2]
    assert [step.samples.tolist() for step in steps if step] == [[True, False], [True, False], [True, True], [True, True]]
    engine.run()


def test_a_budget_smaller_than_the_batch_still_serves_all() -> None:
    engine = Engine(max_num_batched_tokens=2)
    for request_id in range(3):
        engine.submit(request_id, [1], max_tokens=3)
    while (step := engine.step()) is not None:
        assert step.query_lens.sum() <= 2
    assert engine.ended == [0, 1, 2]


def test_without_chunks_a_prompt_goes_whole_or_waits() -> None:
    engine = Engine(max_num_batched_tokens=10, enable_chunked_prefill=False)
    engine.submit(1, [1] * 6, max_tokens=3)
    engine.submit(2, [2] * 10, max_tokens=3)
    engine.submit(3, [3] * 11)
    assert [lens(engine.step()) for _ in range(5)] == [[6], [1], [1], [10], [1]]
    assert engine.error(3) == (
        ErrorKind.INVALID_REQUEST,
        "The prompt holds 11 tokens, but without chunked prefill a step computes at most 10.",
    )


def test_without_chunks_a_preempted_request_that_outgrew_a_step_still_ends() -> None:
    engine = Engine(num_pages=6, page_size=2, max_num_batched_tokens=4, enable_chunked_prefill=False, enable_prefix_caching=False)
    engine.submit(1, [1] * 3, max_tokens=8)
    engine.submit(2, [2] * 3, max_tokens=8)
    engine.run()
    assert engine.scheduler.stats().preemptions > 0
    assert len(engine.tokens(1)) == len(engine.tokens(2)) == 8


def test_a_prefix_is_found_but_never_the_whole_prompt() -> None:
    engine = Engine(page_size=4)
    prompt = list(range(10, 22))
    for request_id in (1, 2):
        engine.submit(request_id, prompt, max_tokens=3)
        engine.run()
    assert engine.tokens(1) == engine.tokens(2)
    assert [engine.heard[i][0].num_cached_tokens for i in (1, 2)] == [0, 8]
    stats = engine.scheduler.stats()
    assert (stats.prefix_queries, stats.prefix_hits, stats.prompt_tokens) == (24, 8, 24)


def test_requests_that_start_together_share_a_prefix() -> None:
    engine = Engine(page_size=4)
    for sample in range(3):
        engine.submit(sample, [1] * 9, max_tokens=2, sample_index=sample)
    assert lens(engine.step()) == [9, 1, 1]
    engine.run()


def test_a_second_turn_finds_the_answer_of_the_first() -> None:
    engine = Engine(page_size=4)
    engine.submit(1, [1] * 6, max_tokens=7)
    engine.run()
    engine.submit(2, [*[1] * 6, *engine.tokens(1), 9])
    engine.run()
    assert engine.heard[2][0].num_cached_tokens == 12


@pytest.mark.parametrize("options", [{"cache_salt": "other"}, {"prompt_logprobs": 0}])
def test_other_salts_and_prompt_logprobs_find_no_prefix(options: dict) -> None:
    engine = Engine()
    engine.submit(1, [1] * 9, max_tokens=1)
    engine.run()
    engine.submit(2, [1] * 9, max_tokens=1, **options)
    engine.run()
    assert engine.heard[2][0].num_cached_tokens == 0


def test_prefix_caching_can_be_switched_off() -> None:
    engine = Engine(enable_prefix_caching=False)
    for request_id in (1, 2):
        engine.submit(request_id, [1] * 9, max_tokens=1)
        engine.run()
    assert engine.heard[2][0].num_cached_tokens == 0


def test_pages_run_out_and_the_latest_starts_over() -> None:
    engine = Engine(num_pages=8, page_size=4)
    for request_id in (1, 2):
        engine.submit(request_id, [request_id] * 8, max_tokens=20)
    engine.run()
    assert engine.scheduler.stats().preemptions == 1
    for request_id in (1, 2):
        request = make_request(request_id, [request_id] * 8, max_tokens=20, ignore_eos=True)
        assert engine.tokens(request_id) == expected_answer(request, engine.info)[0]
    assert engine.ended == [1, 2]


def test_a_newcomer_waits_until_nobody_would_be_preempted_at_once() -> None:
    engine = Engine(num_pages=5, page_size=4)
    engine.submit(1, [1] * 8, max_tokens=4)
    engine.submit(2, [2] * 8, max_tokens=1)
    assert lens(engine.step()) == [8]
    engine.run()
    assert engine.scheduler.stats().preemptions == 0


def test_a_step_is_planned_before_the_tokens_of_the_last_are_known() -> None:
    engine = Engine(runs_ahead=1)
    engine.submit(1, [1, 2, 3], max_tokens=3)
    assert lens(engine.step()) == [3] and not engine.heard
    assert [lens(engine.step()) for _ in range(2)] == [[1], [1]]
    assert len(engine.tokens(1)) == 2
    assert engine.step() is None, "the last token is in flight: nothing is left to compute"
    assert len(engine.tokens(1)) == 3 and engine.scheduler.idle


def test_what_is_computed_past_the_end_is_dropped() -> None:
    alone = Engine()
    alone.submit(1, [1, 2, 3], max_tokens=9)
    alone.run()
    stop = next(token for token in alone.tokens(1)[2:] if token not in alone.tokens(1)[:2])
    engine = Engine(runs_ahead=1, max_num_seqs=1)
    engine.submit(1, [1, 2, 3], stop_token_ids=(stop,))
    engine.submit(2, [4, 5, 6], max_tokens=4)
    engine.run()
    assert engine.tokens(1)[-1] == stop and engine.heard[1][-1].finish is FinishReason.STOP
    request = make_request(2, [4, 5, 6], max_tokens=4, ignore_eos=True)
    assert engine.tokens(2) == expected_answer(request, engine.info)[0], "the next owner of the row took a stranger's token"


def test_a_request_that_starts_over_with_a_token_in_flight_answers_the_same() -> None:
    engine = Engine(num_pages=8, page_size=4, runs_ahead=1)
    for request_id in (1, 2):
        engine.submit(request_id, [request_id] * 8, max_tokens=20)
    engine.run()
    assert engine.scheduler.stats().preemptions
    for request_id in (1, 2):
        request = make_request(request_id, [request_id] * 8, max_tokens=20, ignore_eos=True)
        assert engine.tokens(request_id) == expected_answer(request, engine.info)[0]


def test_a_request_that_starts_over_in_chunks_is_given_its_own_newest_token() -> None:
    engine = Engine(num_pages=7, page_size=2, max_num_batched_tokens=3, max_num_seqs=2)
    for request_id in (1, 2):
        engine.submit(request_id, [request_id] * 3, max_tokens=8)
    engine.run()
    assert engine.scheduler.stats().preemptions
    for request_id in (1, 2):
        request = make_request(request_id, [request_id] * 3, max_tokens=8, ignore_eos=True)
        assert engine.tokens(request_id) == expected_answer(request, engine.info)[0]


def test_fcfs_ignores_priority() -> None:
    engine = Engine(max_num_seqs=1)
    for request_id, priority in ((1, 5), (2, 0)):
        engine.submit(request_id, priority=priority, max_tokens=1)
    engine.run()
    assert list(engine.heard) == [1, 2]


def test_priority_decides_who_starts_and_who_starts_over() -> None:
    engine = Engine(num_pages=7, page_size=4, max_num_seqs=2, scheduling_policy=SchedulingPolicy.PRIORITY)
    engine.submit(1, [1] * 8, priority=2, max_tokens=12)
    engine.submit(2, [2] * 8, priority=1, max_tokens=12)
    engine.submit(3, [3] * 8, priority=0, max_tokens=12)
    engine.run()
    assert engine.scheduler.stats().preemptions > 0
    assert list(engine.heard) == engine.ended == [3, 2, 1]


def test_the_queue_is_full_only_when_no_row_is_free() -> None:
    engine = Engine(max_num_seqs=2, max_queue_size=1)
    for request_id in range(4):
        engine.submit(request_id, max_tokens=1)
    assert engine.error(3) == (ErrorKind.OVERLOADED, "Exceeds maximum queue size")
    assert list(engine.heard) == [3]
    engine.run()
    assert len(engine.heard) == 4


def test_a_request_waits_no_longer_than_it_allows() -> None:
    engine = Engine(max_num_seqs=1)
    engine.submit(1, max_tokens=4)
    engine.submit(2, queue_timeout=2.0)
    engine.submit(3, queue_timeout=9.0, max_tokens=1)
    for now in (0.0, 1.9):
        engine.step(now)
    assert 2 not in engine.heard
    engine.step(2.0)
    assert engine.error(2) == (ErrorKind.QUEUE_TIMEOUT, "Request timeout expired")
    engine.step(3.0)
    engine.step(4.5)
    assert engine.heard[3][0].queue_seconds == 4.5
    assert engine.scheduler.idle


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_abort_frees_everything_at_once(steps: int) -> None:
    engine = Engine(max_num_batched_tokens=4)
    engine.submit(1, [1] * 6, max_tokens=9)
    for _ in range(steps):
        engine.step()
    told = len(engine.heard.get(1, []))
    engine.scheduler.abort(CLIENT, [1, 99])
    assert engine.scheduler.idle and engine.scheduler.pool.used == 0
    assert engine.step() is None
    assert len(engine.heard.get(1, [])) == told


def test_a_front_end_that_goes_takes_only_its_own_requests_along() -> None:
    engine = Engine()
    engine.submit(1, max_tokens=3)
    engine.scheduler.submit(b"2.1", make_request(1, max_tokens=3), 0.0)
    engine.step()
    engine.scheduler.abort_front_end(b"2.1")
    assert engine.scheduler.clients() == {CLIENT}
    engine.run()
    assert len(engine.tokens(1)) == 3


def test_prompt_logprobs_come_whole_on_the_first_output_also_after_a_preemption() -> None:
    engine = Engine(num_pages=10, page_size=2, max_num_batched_tokens=2)
    engine.submit(1, [1] * 2, max_tokens=18)
    engine.step()
    engine.submit(2, list(range(12)), max_tokens=2, prompt_logprobs=0)
    while not engine.scheduler.stats().preemptions:
        engine.step()
    assert 2 not in engine.heard
    engine.run()
    first, *rest = engine.heard[2]
    entries = first.prompt_logprobs or []
    assert entries[0] is None and [entry.token_ids for entry in entries[1:] if entry] == [[token] for token in range(1, 12)]
    assert all(output.prompt_logprobs is None for output in rest)


def test_rows_and_their_seeds() -> None:
    engine = Engine()
    for request_id, seed in enumerate([None, None, -1, -1, -5, 2**64 - 1]):
        engine.submit(request_id, max_tokens=1, seed=seed)
    step = engine.step()
    assert step is not None
    seeds = [start.seed for start in step.starts]
    assert seeds[4:] == [-5, -1] and len(set(seeds)) == 6
    assert all(-(2**63) <= seed < 2**63 for seed in seeds)
    assert sorted(start.row for start in step.starts) == [0, 1, 2, 3, 4, 5]


def test_a_held_back_end_of_sequence_is_named_to_the_runner() -> None:
    engine = Engine()
    engine.submit(1, ignore_eos=False)
    engine.submit(2, ignore_eos=True)
    step = engine.step()
    assert step is not None
    assert [start.eos_token_ids for start in step.starts] == [(7,), ()]


def test_the_model_length_ends_an_answer() -> None:
    engine = Engine(max_model_len=12)
    engine.submit(1, [1] * 9, max_tokens=50)
    engine.submit(2, [1] * 9, max_tokens=None)
    engine.run()
    for request_id in (1, 2):
        assert len(engine.tokens(request_id)) == 3
        assert engine.heard[request_id][-1].finish is FinishReason.LENGTH


def test_a_request_as_large_as_the_pool_is_served() -> None:
    engine = Engine(num_pages=3, page_size=4)
    engine.submit(1, [1] * 5, max_tokens=8)
    engine.submit(2, [1] * 5, max_tokens=None)
    engine.run()
    assert [len(engine.tokens(i)) for i in (1, 2)] == [8, 8]


@pytest.mark.parametrize(
    ("prompt", "options", "text"),
    [
        ([], {}, "The prompt must hold at least one token."),
        ([1] * 128, {}, "The prompt holds 128 tokens, but the model takes at most 128, of which at least one is for the answer."),
        (
            [1] * 40,
            {"max_tokens": 40},
            "The request needs room for 79 tokens (a prompt of 40 and an answer of up to 40), "
            "but the model's whole KV cache holds 64.",
        ),
        ([1, 40], {}, "prompt_token_ids must hold token ids between 0 and 39, the model's vocabulary."),
        ([1, -1], {}, "prompt_token_ids must hold token ids between 0 and 39, the model's vocabulary."),
        ([1, 2**70], {}, "prompt_token_ids must hold token ids between 0 and 39, the model's vocabulary."),
        ([1], {"stop_token_ids": (40,)}, "stop_token_ids must hold token ids between 0 and 39, the model's vocabulary."),
        ([1], {"logit_bias": {99: 1.0}}, "logit_bias must hold token ids between 0 and 39, the model's vocabulary."),
        ([1], {"logprobs": 6}, "logprobs must be at most 5, got 6."),
        ([1], {"prompt_logprobs": 6}, "prompt_logprobs must be at most 5, got 6."),
    ],
)
def test_what_can_never_be_served_is_refused_with_the_figures(prompt: list[int], options: dict, text: str) -> None:
    engine = Engine(num_pages=16, page_size=4)
    engine.submit(1, prompt, **options)
    assert engine.error(1) == (ErrorKind.INVALID_REQUEST, text)
    assert engine.scheduler.idle


def test_a_request_that_waits_for_pages_is_not_looked_up_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only once somebody has given pages back."""
    engine = Engine(num_pages=16, page_size=4)
    looked_up: list[int] = []
    find = engine.scheduler.pool.find
    monkeypatch.setattr(engine.scheduler.pool, "find", lambda keys: (looked_up.append(len(keys)), find(keys))[1])
    engine.submit(1, [1] * 8, max_tokens=24)
    engine.step()
    engine.submit(2, [*[1] * 8, *[2] * 48], max_tokens=2)
    for _ in range(20):
        engine.step()
    assert looked_up == [1, 13]
    engine.run()
    assert looked_up == [1, 13, 13] and engine.ended == [1, 2]
    assert engine.heard[2][0].num_cached_tokens == 8


@pytest.mark.parametrize("count", [1, 8, 9, 30])
def test_what_stops_one_request_stops_no_other(count: int) -> None:
    engine = Engine(num_pages=256)
    stops = tuple(range(10, 10 + count))
    for request_id in range(6):
        engine.submit(request_id, [request_id], max_tokens=40, stop_token_ids=stops if request_id % 2 else ())
    engine.run()
    for request_id in range(6):
        request = make_request(
            request_id, [request_id], ignore_eos=True, max_tokens=40, stop_token_ids=stops if request_id % 2 else ()
        )
        assert (engine.tokens(request_id), engine.heard[request_id][-1].finish) == expected_answer(request, engine.info)
    assert any(engine.heard[request_id][-1].finish is FinishReason.STOP for request_id in (1, 3, 5))
