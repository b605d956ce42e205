"""A runner without a model: its "cache" holds (token, position) pairs, and the next token is a hash of what it reads back there."""

from collections import deque
from collections.abc import Sequence
from zlib import crc32

import numpy as np

from octavo.config import EngineConfig, WeightsFormat
from octavo.engine.messages import EngineFrame, EngineInfo, EngineOutput, EngineRequest, FinishReason, TokenLogprobs
from octavo.engine.scheduler import Scheduler
from octavo.engine.step import Masks, RowStart, StepInput, StepOutput
from octavo.sampling import SamplingParams

VOCAB = 40
EOS = 7


def make_info(num_pages: int = 64, page_size: int = 4, max_model_len: int = 128) -> EngineInfo:
    return EngineInfo(
        max_model_len=max_model_len,
        vocab_size=VOCAB,
        page_size=page_size,
        num_pages=num_pages,
        dtype="none",
        eos_token_ids=[EOS],
        weights_bytes=0,
        max_logprobs=5,
    )


def make_config(**changes: object) -> EngineConfig:
    settings: dict = {"max_num_seqs": 8, "max_num_batched_tokens": 32, "max_queue_size": 100}
    return EngineConfig(
        name="fake", version=1, weights="", weights_format=WeightsFormat.DUMMY, tokenizer="", **{**settings, **changes}
    )


def outputs_of(frame: EngineFrame) -> list[EngineOutput]:
    """What it says of every request, those that have one more token alone included."""
    return [EngineOutput(request_id, [token_id]) for request_id, token_id in frame.tokens()] + frame.outputs


def make_request(request_id: int, prompt: Sequence[int] = (1, 2, 3), **options: object) -> EngineRequest:
    """Options of the request itself by name, all others are sampling options; the seed is 0 unless given."""
    own = {name: options.pop(name) for name in ("priority", "queue_timeout", "cache_salt", "sample_index") if name in options}
    return EngineRequest(id=request_id, prompt_token_ids=list(prompt), sampling=SamplingParams(**{"seed": 0, **options}), **own)


def next_token(history: Sequence[int], seed: int, sample_index: int, forbidden: frozenset[int]) -> int:
    token = crc32(np.array([seed % 1000, sample_index, *history], np.int32).tobytes()) % VOCAB
    while token in forbidden:
        token = (token + 1) % VOCAB
    return token


def forbidden_tokens(sampling: SamplingParams, eos: Sequence[int], generated: int) -> frozenset[int]:
    return frozenset((*eos, *sampling.stop_token_ids)) if generated < sampling.min_tokens else frozenset()


def expected_answer(request: EngineRequest, info: EngineInfo) -> tuple[list[int], FinishReason]:
    """What the fake model answers to ``request`` when it is alone and nothing is paged."""
    sampling, history = request.sampling, list(request.prompt_token_ids)
    eos = [] if sampling.ignore_eos else info.eos_token_ids
    room = min(info.max_model_len, info.num_pages * info.page_size + 1) - len(history)
    answer: list[int] = []
    while True:
        forbidden = forbidden_tokens(sampling, eos, len(answer))
        token = next_token(history + answer, sampling.seed or 0, request.sample_index, forbidden)
        answer.append(token)
        if token in (*eos, *sampling.stop_token_ids) and len(answer) > sampling.min_tokens:
            return answer, FinishReason.STOP
        if len(answer) == min(sampling.max_tokens or room, room):
            return answer, FinishReason.LENGTH


class Made:
    """A step that the fake device has computed."""

    def __init__(self, output: StepOutput) -> None:
        self._output = output
        self._drawn = False

    def draw(self, masks: Masks) -> None:
        assert not self._drawn, "a step is drawn twice"
        self._drawn = True

    def wait(self) -> StepOutput:
        assert self._drawn, "a step is waited for before it is drawn"
        return self._output


class FakeRunner:
    """Writes every (token, position) of a step into fake pages, reads every row's context back and checks it, then "samples".

    A row makes 1 to ``1 + surplus`` tokens a step, as a speculating runner would.
    """

    def __init__(self, info: EngineInfo, surplus: int = 0, runs_ahead: int = 0) -> None:
        self.info = info
        self.runs_ahead = runs_ahead
        self.steps: list[StepInput] = []
        self.cold = 0
        self._surplus = surplus
        self._starts: dict[int, RowStart] = {}
        self._history: dict[int, list[int]] = {}
        self._tables: dict[int, dict[int, int]] = {}
        self._cache = np.full((info.num_pages * info.page_size, 2), -1)

    def warm_up(self) -> bool:
        self.cold -= 1
        return self.cold >= 0

    def launch(self, step: StepInput) -> Made:
        self.steps.append(step)
        for start in step.starts:
            self._starts[start.row] = start
            self._history[start.row] = start.token_ids.tolist()
            self._tables[start.row] = {}
        assert len({(row, place) for row, place, _ in step.pages.tolist()}) == len(step.pages), "an entry changes twice"
        for row, place, page in step.pages.tolist():
            self._tables[row][place] = page
        assert len(set(step.rows.tolist())) == len(step.rows), "a row occurs twice"
        assert step.query_lens[step.num_decodes :].sum() == len(step.token_ids) and (step.query_lens > 0).all()
        assert (step.query_lens[: step.num_decodes] == 1).all() and step.samples[: step.num_decodes].all()
        drawn = [self._history[row][-1] for row in step.rows[: step.num_decodes].tolist()]
        tokens, ends = np.array([*drawn, *step.token_ids]), np.cumsum(step.query_lens)
        for at in range(len(step.rows)):
            self._write(step, at, tokens[ends[at] - step.query_lens[at] : ends[at]])
        output = StepOutput(np.full((len(step.rows), 1 + self._surplus), -1), {}, {})
        for at, row in enumerate(step.rows.tolist()):
            self._sample(at, self._read(step, at), row, step, output)
        return Made(output)

    def _slots(self, step: StepInput, at: int) -> np.ndarray:
        size, table = self.info.page_size, self._tables[int(step.rows[at])]
        return np.array([table[position // size] * size + position % size for position in range(int(step.context_lens[at]))])

    def _write(self, step: StepInput, at: int, tokens: np.ndarray) -> None:
        positions = np.arange(step.context_lens[at] - step.query_lens[at], step.context_lens[at])
        self._cache[self._slots(step, at)[positions]] = np.stack([tokens, positions], 1)

    def _read(self, step: StepInput, at: int) -> list[int]:
        row, context = int(step.rows[at]), int(step.context_lens[at])
        tokens, positions = self._cache[self._slots(step, at)].T
        assert positions.tolist() == list(range(context)), "a page holds other positions"
        assert tokens.tolist() == self._history[row][:context], "a page holds another sequence"
        assert step.samples[at] == (context == len(self._history[row]))
        used = -(-context // self.info.page_size)
        table = self._tables[row]
        assert len({table[place] for place in range(used)}) == used, "a page occurs twice in one table"
        return tokens.tolist()

    def _sample(self, at: int, tokens: list[int], row: int, step: StepInput, output: StepOutput) -> None:
        start, made = self._starts[row], []
        sampling = start.sampling
        if step.samples[at]:
            for _ in range(1 + crc32(bytes(tokens)) % (1 + self._surplus)):
                generated = len(self._history[row]) - start.num_prompt_tokens
                forbidden = forbidden_tokens(sampling, start.eos_token_ids, generated)
                made.append(next_token(self._history[row], start.seed, start.sample_index, forbidden))
                self._history[row].append(made[-1])
        output.token_ids[at, : len(made)] = made
        if sampling.logprobs is not None and made:
            output.logprobs[at] = [TokenLogprobs([token], [-1.0], [1]) for token in made]
        if start.scores_prompt:
            first = int(step.context_lens[at] - step.query_lens[at]) + 1
            scored = tokens[first : start.num_prompt_tokens] + self._next_prompt_token(start, tokens)
            output.prompt_logprobs[at] = [TokenLogprobs([token], [-2.0], [1]) for token in scored]

    @staticmethod
    def _next_prompt_token(start: RowStart, tokens: list[int]) -> list[int]:
        """The position after a chunk is scored by the chunk's last logits, if it is one of the prompt."""
        return [int(start.token_ids[len(tokens)])] if len(tokens) < start.num_prompt_tokens else []


class Pipeline:
    """Steps a scheduler and a runner as the core does, ``runner.runs_ahead`` steps ahead of what is known."""

    def __init__(self, scheduler: Scheduler, runner: FakeRunner) -> None:
        self._scheduler = scheduler
        self._runner = runner
        self._in_flight: deque[tuple[StepInput, Made]] = deque()

    def step(self, now: float) -> StepInput | None:
        """The step that was planned, if there was something to plan."""
        step = self._scheduler.schedule(now)
        if step is not None:
            made = self._runner.launch(step)
            made.draw({})
            self._in_flight.append((step, made))
        if len(self._in_flight) > (self._runner.runs_ahead if step is not None else 0):
            ended, made = self._in_flight.popleft()
            self._scheduler.update(ended, made.wait())
        return step
