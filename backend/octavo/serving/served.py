"""``ServedEngine``: one engine as a front end uses it: generations begun, watched until their end, and counted."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from octavo.config import RequestLimits
from octavo.engine.client import EngineClient
from octavo.errors import Cancelled, ErrorKind, OctavoError
from octavo.logs import of_request
from octavo.serving.control import EngineBinding, OpenRequest
from octavo.serving.statistics import Counters, FailureReason
from octavo.text.answer_format import AnswerFormat
from octavo.text.backlog import Backlog
from octavo.text.generator import Generation, Generator
from octavo.text.observer import Observer
from octavo.text.request import Conversation, GenerateRequest
from octavo.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)
NANOSECONDS = 1_000_000_000
COUNTED_AFTER = 0.1  # seconds, at most
_REASONS = {
    ErrorKind.CANCELLED: FailureReason.CANCELED,
    ErrorKind.OVERLOADED: FailureReason.REJECTED,
    ErrorKind.QUEUE_TIMEOUT: FailureReason.REJECTED,
    ErrorKind.INVALID_REQUEST: FailureReason.OTHER,
}


class Trace(Protocol):
    """What is told of a request to whoever traces it."""

    def refuse(self, received_at: float, error: OctavoError) -> None:
        """It was turned away."""

    def end(self, generation: Generation, received_at: float) -> None:
        """It is over."""


class Arrival(NamedTuple):
    """When the bytes of a request were here (``time.monotonic``), and its trace if it has one.

    ``owner``: who may end it by its id, None if its dialect has no such request.
    """

    at: float
    trace: Trace | None = None
    owner: bytes | None = None


class _Progress:
    """What was counted of a generation that is open. ``responses`` were taken, the last of them at ``responded_at``."""

    __slots__ = ("arrival", "responded_at", "responded_output", "responses", "started")

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival
        self.started = False
        self.responses = 0
        self.responded_at: float | None = None
        self.responded_output = 0.0

    def count_response(
        self, generation: Generation, counters: Counters, now: float, made: float, error: OctavoError | None = None
    ) -> None:
        """A response that left at ``now`` is computed from the one before it on, the first of all from when the engine began.

        ``made``: what it took to make text of all tokens by then, in seconds. ``error``: what it says instead of an answer.
        """
        began = self.responded_at
        if began is None:
            began = (generation.submitted_at or generation.arrived_at) + (generation.queue_seconds or 0.0)
        text = made - self.responded_output
        compute = now - began - text
        if compute < 0:  # text may be made while the engine is at work
            compute = 0.0
        number, responses = self.responses, counters.responses
        place = responses[number] if number < len(responses) else counters.response(number)
        if error is None:
            place.success += 1
            place.compute += compute
            place.text += text
        elif isinstance(error, Cancelled):
            place.cancel += 1
            place.cancelled += compute + text
        else:
            place.fail += 1
            place.failed_compute += compute
            place.failed_text += text
        self.responses = number + 1
        self.responded_at, self.responded_output = now, made


class ServedEngine(Observer):
    """Generations on one engine. Once ``retire`` was called, ``released`` is called when the last of them is over.

    ``counters`` gives the counters to add to now; they may be others at every call.
    """

    def __init__(
        self, binding: EngineBinding, tokenizer: Tokenizer, counters: Callable[[], Counters], limits: RequestLimits
    ) -> None:
        """Connect to a running engine. Every request is held to ``limits``."""
        self.binding, self.tokenizer = binding, tokenizer
        self.format = AnswerFormat(tokenizer, binding.tool_call_parser, binding.reasoning_parser)
        self._client = EngineClient(binding.address)
        self._generator = Generator(self._client, tokenizer, binding.info, self, limits)
        self._counters = counters
        self._open: dict[Generation, _Progress] = {}
        self._loop = asyncio.get_running_loop()
        # What is not counted yet: the seconds before each token, and responses as ``count_response`` takes them.
        self._gaps: list[float] = []
        self._responses: list[tuple[_Progress, Generation, float, float]] = []
        self._counting = False
        self._released: Callable[[], None] | None = None

    def generate(self, request: GenerateRequest, arrival: Arrival, backlog: Backlog) -> Generation:
        """Begin to answer. Raises as ``Generator`` does."""
        generation = self._generator.generate(request, backlog)
        if log.isEnabledFor(logging.DEBUG):
            about = of_request(request.id)
            log.debug("Request %r for model %s version %d has begun.", *about.values(), request.model, request.version, extra=about)
        if not generation.over:
            self._open[generation] = _Progress(arrival)
        return generation

    async def tokenize(self, prompt: str | Conversation, add_special_tokens: bool) -> list[int]:
        """The token ids of a prompt, without an answer. Raises ``InvalidRequest``."""
        return await self._generator.tokenize(prompt, add_special_tokens)

    def retire(self, released: Callable[[], None]) -> None:
        """No new generations come; call ``released`` once the open ones are over."""
        self._released = released
        self._release_if_done()

    def die(self, error: OctavoError) -> None:
        """The engine has died: end all its generations with ``error``."""
        self._client.fail_all(error)

    def stop(self, model: str, request_id: str, owner: bytes) -> None:
        """End the open generations of ``model`` whose client calls them ``request_id`` and is ``owner``."""
        for generation, progress in list(self._open.items()):
            request = generation.request
            if (request.id, request.model, progress.arrival.owner) == (request_id, model, owner):
                generation.cancel()

    def open_requests(self, now: float) -> list[OpenRequest]:
        """The open generations, as an operator may see them."""
        return [_shown(generation, now - progress.arrival.at) for generation, progress in self._open.items()]

    def cancel_all(self) -> None:
        """End all open generations."""
        for generation in list(self._open):
            generation.fail(Cancelled("The server is shutting down and the time for open requests is over."))

    def close(self) -> None:
        """Disconnect from the engine."""
        self._client.close()

    # What the generator tells its observer.

    def first_tokens(self, generation: Generation, seconds: float, count: int) -> None:
        """Count a sample's first tokens, and with the first of its request how long that took."""
        counters = self._counters()
        counters.generation_tokens += count
        progress = self._open.get(generation)
        if progress is not None and not progress.started:
            progress.started = True
            counters.prompt_tokens += generation.num_prompt_tokens
            counters.time_to_first_token.observe(seconds)

    def next_tokens(self, seconds: float, count: int) -> None:
        """Count tokens that came together as if they had come one after the other; many at once, while nobody waits for them."""
        if not self._counting:
            self._count_later()
        if count == 1:
            self._gaps.append(seconds)
        else:
            self._gaps += [seconds / count] * count

    def _count_later(self) -> None:
        self._counting = True
        self._loop.call_later(COUNTED_AFTER, self._count_now)

    def _count_now(self) -> None:
        self._counting = False
        self._count()

    def _count(self) -> None:
        gaps, self._gaps = self._gaps, []
        responses, self._responses = self._responses, []
        counters = self._counters()
        counters.generation_tokens += len(gaps)
        counters.inter_token_latency.observe_all(gaps)
        for progress, generation, now, made in responses:
            progress.count_response(generation, counters, now, made)

    def responded(self, generation: Generation) -> None:
        """Count a piece of an answer, while nobody waits for it."""
        progress = self._open.get(generation)
        if progress is not None:
            if not self._counting:
                self._count_later()
            self._responses.append((progress, generation, time.monotonic(), generation.output_seconds))

    def finished(self, generation: Generation) -> None:
        """Count the request as a whole, and its last piece."""
        self._count()
        counters = self._counters()
        progress = self._open.pop(generation, None) or _Progress(Arrival(generation.arrived_at))
        assert generation.finished_at is not None
        if generation.error is None:
            _count_success(counters, generation, progress.arrival.at)
        else:
            count_failure(counters, generation.error, generation.finished_at - progress.arrival.at)
        finished, made = generation.finished_at, generation.output_seconds
        progress.count_response(generation, counters, finished, made, generation.error)
        if generation.queue_seconds is not None:
            counters.queue_time.observe(generation.queue_seconds)
        counters.request_latency.observe(generation.finished_at - generation.arrived_at)
        counters.samples.observe(generation.request.sampling.n)
        if progress.arrival.trace is not None:
            progress.arrival.trace.end(generation, progress.arrival.at)
        if log.isEnabledFor(logging.DEBUG):
            _log_end(generation, generation.finished_at - progress.arrival.at)
        self._release_if_done()

    def _release_if_done(self) -> None:
        if self._released is not None and not self._open:
            released, self._released = self._released, None
            released()


def count_failure(counters: Counters, error: OctavoError, seconds: float) -> None:
    """Count a request that ended with ``error`` after ``seconds``."""
    counters.fail.observe(_nanoseconds(seconds))
    counters.failures[_REASONS.get(error.kind, FailureReason.BACKEND)] += 1


def _shown(generation: Generation, age: float) -> OpenRequest:
    request, tokens = generation.request, generation.num_generation_tokens
    name = of_request(request.id)["request_id"]
    return OpenRequest(name, request.model, request.version, age, generation.num_prompt_tokens, tokens, generation.queue_seconds)


def _log_end(generation: Generation, seconds: float) -> None:
    """What became of a request, without a word of what was asked and answered."""
    about, error = of_request(generation.request.id), generation.error
    log.debug(
        "Request %r has ended after %.3f s with %d prompt tokens and %d of its answer: %s.",
        *about.values(), seconds, generation.num_prompt_tokens, generation.num_generation_tokens,
        error.kind.name.lower() if error else "success", extra=about,
    )  # fmt: skip


def _count_success(counters: Counters, generation: Generation, received_at: float) -> None:
    """The parts of a request's time follow one another: read, queue, compute; of computing, what made text is the output's."""
    assert generation.finished_at is not None and generation.submitted_at is not None
    queue, output = _nanoseconds(generation.queue_seconds or 0.0), _nanoseconds(generation.output_seconds)
    computing = _nanoseconds(generation.finished_at - generation.submitted_at)
    counters.success.observe(_nanoseconds(generation.finished_at - received_at))
    counters.queue.observe(queue)
    counters.compute_input.observe(_nanoseconds(generation.submitted_at - received_at))
    counters.compute_infer.observe(max(0, computing - queue - output))
    counters.compute_output.observe(output)
    counters.last_inference_ms = int(time.time() * 1000)
    counters.prompt_length.observe(generation.num_prompt_tokens)
    counters.generation_length.observe(generation.num_generation_tokens)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * NANOSECONDS)
