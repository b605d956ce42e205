"""``OfflineEngine``: one engine process and the generator over it, in the running event loop. Knows no dialect."""

import asyncio
import logging
import shutil
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import NamedTuple

import zmq.asyncio

from octavo.config import EngineConfig, SchedulingPolicy
from octavo.engine.client import EngineClient
from octavo.engine.control import EngineReport
from octavo.errors import EngineDead, internal
from octavo.logs import LogSettings
from octavo.serving.children import PROGRAMS
from octavo.serving.directory import private_directory
from octavo.serving.engines import EngineProcess, Engines
from octavo.serving.hub import Hub
from octavo.text.answer_format import AnswerFormat
from octavo.text.generator import Generation, Generator
from octavo.text.observer import Observer
from octavo.text.rendering import template_helper
from octavo.text.request import GenerateChunk, GenerateRequest
from octavo.text.tokenizer import Tokenizer, load_tokenizer

log = logging.getLogger(__name__)
# So many prompts are tokenised before the engine hears of them and the loop turns.
_SENT_TOGETHER = 64
# A queue that has no other clients need not be limited.
UNLIMITED = 2**31 - 1


class Completion(NamedTuple):
    """The whole answer to the request of that ``number``; ``generation`` knows its times."""

    number: int
    generation: Generation
    chunk: GenerateChunk


class OfflineEngine(Observer):
    """Starts with ``start``, ends with ``close``; the process cannot outlive the thread that it was started from.

    Once the process has died, every request fails with the cause.
    """

    def __init__(self, config: EngineConfig) -> None:
        """Nothing runs yet. Must be called inside a running event loop."""
        self.config = config
        self.templates = template_helper()
        self._directory = private_directory()
        hub: Hub[EngineReport] = Hub(zmq.asyncio.Context.instance(), f"ipc://{self._directory}/control", EngineReport)
        # The engine's process tells of itself on standard error if this process tells of us at all.
        logs = LogSettings(info=log.isEnabledFor(logging.INFO))
        self._engines = Engines(hub, PROGRAMS.engine, self._directory, self._failed, logs)
        self._client: EngineClient | None = None
        self._watching: asyncio.Task[None] | None = None
        self._over: dict[Generation, Callable[[Generation], None]] = {}

    async def start(self) -> None:
        """Load model and tokenizer, and wait until the engine is ready. Raises ``LoadFailed``."""
        loading = asyncio.create_task(self._engines.start(self.config))
        try:
            self.tokenizer: Tokenizer = await asyncio.to_thread(load_tokenizer, self.config.tokenizer, self.templates)
            process = await loading
        except BaseException:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            raise
        assert process.info is not None
        self.info = process.info
        self.format = AnswerFormat(self.tokenizer, self.config.tool_call_parser, self.config.reasoning_parser)
        self._client = EngineClient(process.address)
        self._generator = Generator(self._client, self.tokenizer, process.info, self)
        self._watching = asyncio.create_task(self._watch(process, self._client))

    def generate(self, request: GenerateRequest) -> Generation:
        """Begin to answer. Raises ``OctavoError`` as ``Generator.generate`` does."""
        return self._generator.generate(request)

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[GenerateChunk]:
        """The chunks of one answer, which is cancelled if nobody reads on. Raises as ``generate`` does, and its error."""
        generation = self.generate(request)
        try:
            async for chunk in generation:
                yield chunk
        finally:
            generation.cancel()

    async def answer(self, request: GenerateRequest) -> GenerateChunk:
        """The whole answer to a request that does not stream. Raises as ``stream`` does."""
        generation = self.generate(request)
        try:
            return await anext(generation)
        finally:
            generation.cancel()

    async def complete(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Completion]:
        """The whole answers to ``requests``, none of which may stream, as they end.

        They are sent in the order in which they are to start: the engine begins with what it has while the others are read.
        Raises the first error; then, and if nobody reads on, all others are cancelled.
        """
        over: asyncio.Queue[Generation] = asyncio.Queue()
        numbers: dict[Generation, int] = {}
        try:
            for sent, number in enumerate(self._in_order(requests)):
                generation = self.generate(requests[number])
                numbers[generation] = number
                if generation.over:
                    over.put_nowait(generation)
                else:
                    self._over[generation] = over.put_nowait
                if sent % _SENT_TOGETHER == _SENT_TOGETHER - 1:
                    await asyncio.sleep(0)
            while numbers:
                generation = await over.get()
                yield Completion(numbers.pop(generation), generation, await anext(generation))
        finally:
            for generation in numbers:
                self._over.pop(generation, None)
                generation.cancel()

    def _in_order(self, requests: Sequence[GenerateRequest]) -> Sequence[int]:
        """The places of ``requests`` in the order in which they are to start."""
        places = range(len(requests))
        by_priority = self.config.scheduling_policy is SchedulingPolicy.PRIORITY
        return sorted(places, key=lambda place: requests[place].priority) if by_priority else places

    def finished(self, generation: Generation) -> None:
        """The generator's word that ``generation`` is over."""
        tell = self._over.pop(generation, None)
        if tell is not None:
            tell(generation)

    async def close(self) -> None:
        """End the process at once, and with it what is open."""
        if self._watching is not None:
            self._watching.cancel()
        if self._client is not None:
            self._client.fail_all(EngineDead("The engine has been shut down."))
            self._client.close()
        await self._engines.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    async def _watch(self, process: EngineProcess, client: EngineClient) -> None:
        await process.gone.wait()
        client.fail_all(EngineDead(f"The engine of model '{self.config.name}' has died. {process.why_it_died()}"))

    def _failed(self, error: BaseException) -> None:
        broken = internal(error, log)
        if self._client is not None:  # no fault of a request: nobody watches the process any more
            self._client.fail_all(EngineDead(str(broken)))
