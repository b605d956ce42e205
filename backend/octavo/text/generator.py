"""``Generator`` and ``Generation``: a ``GenerateRequest`` in, an async stream of ``GenerateChunk`` out. Knows no wire format.

All of it runs in one event loop, without a task per request or token: the engine client calls ``Generation`` for every
output, which calls whoever listens. Only long texts are tokenised in a thread, and conversations rendered in one.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic

import msgspec

from octavo.config import DEFAULT_LIMITS, RequestLimits
from octavo.engine.client import EngineClient
from octavo.engine.messages import EngineInfo, EngineOutput, EngineRequest, TokenLogprobs
from octavo.errors import Cancelled, OctavoError, internal
from octavo.sampling import SamplingParams
from octavo.structured_outputs import Thoughts
from octavo.text.admission import Admission
from octavo.text.backlog import Backlog
from octavo.text.observer import Observer
from octavo.text.prompts import PromptReader
from octavo.text.request import Conversation, GenerateChunk, GenerateRequest
from octavo.text.sample import Sample
from octavo.text.stops import StopSet
from octavo.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)
_readers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="tokenize")


class _Strand:
    """One sample of a generation, as the engine's client knows it. ``prompt``: the place of the prompt that it continues."""

    __slots__ = ("_generation", "id", "prompt", "sample")

    def __init__(self, generation: "Generation", request_id: int, sample: Sample, prompt: int) -> None:
        self._generation, self.id, self.sample, self.prompt = generation, request_id, sample, prompt

    def hear(self, output: EngineOutput) -> None:
        """Whatever the engine says."""
        self._generation.take_in(self, output)

    def hear_token(self, token_id: int) -> None:
        """One more token."""
        self._generation.take_in_token(self, token_id)


class Generation:
    """One request's answer: an async iterator of chunks that ends after the final one or raises the first error.

    Whoever cannot afford to wait for each chunk asks to be called (``listen``) and takes what there is (``take``). What was
    not read yet is merged into the next chunk, so a slow reader holds no more than the answer, and of a streamed one no more
    than ``backlog`` allows: beyond that it is cancelled. Whoever stops reading early must call ``cancel``.
    The public attributes are for metrics and complete once ``over`` is true; ``arrived_at``, ``submitted_at`` (to the engine),
    ``first_token_at`` and ``finished_at`` are seconds of ``time.monotonic``; ``output_seconds`` is what it took to make text of
    the tokens.
    """

    __slots__ = (
        "_backlog", "_cached", "_client", "_fresh", "_heard", "_logprobs", "_num_cached", "_observer", "_open", "_prompt_logprobs",
        "_read_to_end", "_samples", "_streamed", "_unread_bytes", "arrived_at", "error", "finished_at", "first_token_at",
        "output_seconds", "prompt_token_ids", "queue_seconds", "request", "submitted_at",
    )  # fmt: skip

    def __init__(
        self,
        request: GenerateRequest,
        client: EngineClient,
        samples: list[Sample],
        observer: Observer,
        backlog: Backlog | None = None,
    ) -> None:
        """Nothing is sent before ``start``. ``samples``: those of the first prompt, then those of the second, and so on."""
        self.request = request
        self.arrived_at = monotonic()
        self.submitted_at: float | None = None
        self.first_token_at: float | None = None
        self.finished_at: float | None = None
        self.prompt_token_ids: list[list[int]] = []
        self.queue_seconds: float | None = None
        self.output_seconds = 0.0
        self.error: OctavoError | None = None
        self._client = client
        self._samples = samples
        self._observer = observer
        self._streamed, self._logprobs = request.stream, request.sampling.logprobs or 0
        self._backlog = backlog if request.stream else None
        self._unread_bytes = 0
        self._open: dict[int, _Strand] = {}
        self._cached: list[int | None] = [None] * len(request.prompts)
        self._num_cached = 0
        self._prompt_logprobs: dict[int, list[TokenLogprobs | None]] = {}
        self._heard: Callable[[], None] = _nobody_listens
        self._fresh = False
        self._read_to_end = False

    @property
    def over(self) -> bool:
        """Whether nothing more will come from the engine."""
        return self.finished_at is not None

    @property
    def num_prompt_tokens(self) -> int:
        """Length of all prompts in tokens."""
        return sum(map(len, self.prompt_token_ids))

    @property
    def num_generation_tokens(self) -> int:
        """Of all samples, so far."""
        return sum(sample.num_tokens for sample in self._samples)

    @property
    def num_cached_tokens(self) -> int:
        """How many of them needed no computing for any sample, of those prompts whose samples have begun."""
        return self._num_cached

    def start(self, prompt_token_ids: list[list[int]], thoughts: list[Thoughts | None], bad_words: list[list[int]]) -> None:
        """Send one engine request per sample; one list per prompt. Raises what ``EngineClient.submit`` raises.

        ``thoughts``: of each prompt, what may come before an answer that follows a grammar. ``bad_words``: token ids.
        """
        self.prompt_token_ids = prompt_token_ids
        for number, sample in enumerate(self._samples):
            prompt, index = divmod(number, self.request.sampling.n)
            request = self.request
            asked = EngineRequest(
                self._client.next_id(),
                prompt_token_ids[prompt],
                _engine_sampling(request.sampling, index),
                index,
                request.priority,
                request.queue_timeout,
                request.cache_salt,
                thoughts[prompt],
                bad_words,
            )
            strand = _Strand(self, asked.id, sample, prompt)
            self._client.submit(asked, strand)
            self._open[asked.id] = strand
        self.submitted_at = monotonic()

    def cancel(self) -> None:
        """Abort what still runs; a reader gets ``Cancelled``. Does nothing once the generation is over."""
        self.fail(Cancelled("Request was cancelled"))

    def fail(self, error: OctavoError) -> None:
        """End with ``error``, which the reader gets after what came before it, and abort what still runs."""
        if not self.over:
            self.error = error
            for request_id in self._open:
                self._client.abort(request_id)
            self._open.clear()
            self._finish()

    def __aiter__(self) -> "Generation":
        """The chunks, once."""
        return self

    async def __anext__(self) -> GenerateChunk:
        """The next chunk: everything since the last one, or the first thing to come."""
        if self._read_to_end:
            raise StopAsyncIteration
        while (chunk := self.take()) is None:
            waiter = asyncio.get_running_loop().create_future()
            self.listen(partial(_wake, waiter))
            await waiter
        return chunk

    def listen(self, heard: Callable[[], None]) -> None:
        """From now on call ``heard``, and nobody else, whenever there is more to take. One ``take`` is then enough."""
        self._heard = heard

    def take(self) -> GenerateChunk | None:
        """Everything since the last chunk, None if that is nothing yet. Raises the first error, once what came before is taken.

        Must not be called again after the final chunk or an error.
        """
        over = self.finished_at is not None
        if not self._fresh:
            if not over:
                return None
            if self.error is not None:
                self._read_to_end = True
                raise self.error
        self._fresh = False
        final = self._read_to_end = over and self.error is None
        if not over:
            self._observer.responded(self)
        elif not final:
            self._heard()  # the error is still to be taken
        if self._backlog is not None:
            self._backlog.take(self._unread_bytes)
            self._unread_bytes = 0
        samples = self._samples
        return GenerateChunk(
            [samples[0].take()] if len(samples) == 1 else [sample.take() for sample in samples],
            final,
            self.prompt_token_ids,
            self._num_cached,
            self._take_prompt_logprobs() if self._prompt_logprobs else None,
        )

    def _take_prompt_logprobs(self) -> list[list[TokenLogprobs | None] | None]:
        logprobs, self._prompt_logprobs = self._prompt_logprobs, {}
        return [logprobs.get(prompt) for prompt in range(len(self._cached))]

    def take_in(self, strand: _Strand, output: EngineOutput) -> None:
        """What the engine says of a sample. What fails here is a bug of ours, and the reader must not wait for ever."""
        try:
            if strand.id not in self._open:
                return
            if output.error is None:
                self._read(strand, output)
            else:
                self.fail(output.error.exception())
        except Exception as error:
            self._break(error)

    def take_in_token(self, strand: _Strand, token_id: int) -> None:
        """One more token: the same as an output with nothing else in it, without its detours."""
        sample = strand.sample
        before = sample.last_output_at
        if before is None or sample.watched:
            self.take_in(strand, EngineOutput(strand.id, [token_id]))
            return
        try:
            now = sample.last_output_at = monotonic()
            if self._backlog is not None:
                self._unread_bytes += self._backlog.add(1, self._logprobs)
            sample.add_token(token_id)
            self._observer.next_tokens(now - before, 1)
            self.output_seconds += monotonic() - now
            if self._streamed and not self._fresh:
                self._tell()
        except Exception as error:
            self._break(error)

    def _break(self, error: Exception) -> None:
        self.fail(error if isinstance(error, Cancelled) else internal(error, log, self.request.id))

    def _read(self, strand: _Strand, output: EngineOutput) -> None:
        sample, now, before = strand.sample, monotonic(), strand.sample.num_tokens
        if output.queue_seconds is not None:
            self._note_start(output, strand.prompt)
        if output.token_ids and self._backlog is not None:
            self._unread_bytes += self._backlog.add(len(output.token_ids), self._logprobs)
        if sample.add(output):
            self._client.abort(output.id)
        if count := sample.num_tokens - before:
            self._note_tokens(sample, count, now)
        if sample.finish_reason is not None:
            del self._open[output.id]
        self.output_seconds += monotonic() - now
        more = self._streamed and (count > 0 or output.finish is not None)
        if not self._open:
            self._fresh = self._fresh or more
            self._finish()
        elif more:
            self._tell()

    def _note_start(self, output: EngineOutput, prompt: int) -> None:
        self.queue_seconds = max(output.queue_seconds or 0.0, self.queue_seconds or 0.0)
        cached, known = output.num_cached_tokens or 0, self._cached[prompt]
        self._cached[prompt] = cached if known is None else min(cached, known)
        self._num_cached = sum(cached or 0 for cached in self._cached)
        if output.prompt_logprobs is not None:
            self._prompt_logprobs[prompt] = output.prompt_logprobs

    def _note_tokens(self, sample: Sample, count: int, now: float) -> None:
        if sample.last_output_at is None:
            self.first_token_at = self.first_token_at or now
            self._observer.first_tokens(self, now - self.arrived_at, count)
        else:
            self._observer.next_tokens(now - sample.last_output_at, count)
        sample.last_output_at = now

    def _tell(self) -> None:
        """There is more to take. What a step made for several samples is told of once."""
        if self._fresh:
            return
        self._fresh = True
        if len(self._samples) == 1:
            self._heard()
        else:
            asyncio.get_running_loop().call_soon(self._tell_now)

    def _tell_now(self) -> None:
        if self._fresh:
            self._heard()

    def _finish(self) -> None:
        self.finished_at = monotonic()
        self._observer.finished(self)
        self._heard()


class Generator:
    """Serves one loaded model: admission, tokenising, and a ``Generation`` per request. Bound to the running event loop."""

    def __init__(
        self,
        client: EngineClient,
        tokenizer: Tokenizer,
        info: EngineInfo,
        observer: Observer | None = None,
        limits: RequestLimits = DEFAULT_LIMITS,
    ) -> None:
        """``client`` and ``info`` belong to the same engine; ``observer`` hears of every generation."""
        self.tokenizer = tokenizer
        self.info = info
        self._client = client
        self._observer = observer or Observer()
        self._admission = Admission(info, limits)
        self._reader = PromptReader(tokenizer, self._admission)
        self._eos = frozenset(info.eos_token_ids)

    def generate(self, request: GenerateRequest, backlog: Backlog | None = None) -> Generation:
        """Start to answer ``request``; ``backlog`` counts what is not read of it.

        Raises ``OctavoError`` if it can never be served; what takes long to read is refused to who reads the answer.
        """
        sampling = request.sampling
        self._admission.check(request)
        stops = StopSet(sampling.stop) if sampling.stop else None
        words = StopSet(request.stop_words) if request.stop_words else None
        count, markers = len(request.prompts) * sampling.n, request.markers
        samples = [Sample(self.tokenizer, sampling, stops, self._eos, markers, words) for _ in range(count)]
        generation = Generation(request, self._client, samples, self._observer, backlog)
        if self._reader.takes_long(request.prompts):
            self._read_aside(generation)
        else:
            self._begin(generation, self._reader.read(request.prompts))
        return generation

    async def tokenize(self, prompt: str | Conversation, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a prompt, without an answer. Raises ``InvalidRequest``."""
        self._reader.check_texts([prompt])
        if not self._reader.takes_long([prompt]):
            return self._reader.encode(prompt, add_special_tokens)
        return await asyncio.get_running_loop().run_in_executor(_readers, self._reader.encode, prompt, add_special_tokens)

    def _begin(self, generation: Generation, prompt_token_ids: list[list[int]]) -> None:
        request = generation.request
        reasoning = request.reasoning if request.sampling.structured_outputs is not None else None
        thoughts = [None if reasoning is None else reasoning.thoughts(self.tokenizer, ids) for ids in prompt_token_ids]
        generation.start(prompt_token_ids, thoughts, self._reader.bad_words(request))

    def _read_aside(self, generation: Generation) -> None:
        prompts = generation.request.prompts
        self._reader.check_texts(prompts)
        loop = asyncio.get_running_loop()
        loop.run_in_executor(_readers, self._reader.read, prompts).add_done_callback(partial(self._encoded, generation))

    def _encoded(self, generation: Generation, encoding: "asyncio.Future[list[list[int]]]") -> None:
        if encoding.cancelled():
            return
        refusal = encoding.exception()  # asked for in any case: the loop complains of one that nobody has looked at
        if generation.over:
            return
        try:
            if refusal is not None:
                raise refusal
            self._begin(generation, encoding.result())
        except OctavoError as error:
            generation.fail(error)
        except Exception as error:
            generation.fail(internal(error, log, generation.request.id))


def _nobody_listens() -> None:
    """What a generation calls that nobody waits for."""


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


def _engine_sampling(sampling: SamplingParams, index: int) -> SamplingParams:
    """How sample ``index`` is drawn; what only the text side needs is left out."""
    prompt_logprobs = sampling.prompt_logprobs if index == 0 else None
    if (sampling.n, sampling.stop, sampling.bad_words, sampling.prompt_logprobs) == (1, (), (), prompt_logprobs):
        return sampling
    return msgspec.structs.replace(sampling, n=1, stop=(), bad_words=(), prompt_logprobs=prompt_logprobs)
