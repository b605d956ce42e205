"""``Batch``: an OpenAI batch on one engine: each line is answered as a server would have answered it. Knows no file."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from typing import NamedTuple, TypeAlias

from octavo.errors import ErrorKind, InvalidRequest, NotFound, OctavoError, internal, shown
from octavo.offline.batch_files import Line
from octavo.offline.engine import OfflineEngine
from octavo.protocol.openai.batch import BatchCall, answered, read_call, unreadable
from octavo.protocol.openai.dialects import CHAT, COMPLETIONS, RESPONSES, Asked, Dialect
from octavo.protocol.openai.errors import FieldError, error_body, no_such_route
from octavo.protocol.statuses import OPENAI
from octavo.text.request import GenerateChunk

# What is no fault of a line's: the run ends, and the next one asks again.
_FATAL = {ErrorKind.ENGINE_DEAD, ErrorKind.DRAINING, ErrorKind.CANCELLED, ErrorKind.OVERLOADED, ErrorKind.QUEUE_TIMEOUT}
_OK, _NO_ROUTE = 200, 404
log = logging.getLogger(__name__)

_DIALECTS = {"/v1/chat/completions": CHAT, "/v1/completions": COMPLETIONS, "/v1/responses": RESPONSES}


class Answered(NamedTuple):
    """One line's answer, to be written; ``tokens`` were generated for it."""

    line: bytes
    ok: bool
    tokens: int = 0


_Done: TypeAlias = "asyncio.Queue[Answered | asyncio.Task[None]]"


class Batch:
    """The lines of one batch. ``names``: what their bodies may call the model."""

    def __init__(self, engine: OfflineEngine, names: list[str]) -> None:
        """Answer with ``engine``."""
        self._engine, self._names = engine, names

    async def run(self, lines: Iterator[Line]) -> AsyncGenerator[Answered]:
        """The answers to ``lines``, as they end. Raises ``OctavoError`` if the engine cannot answer any more."""
        done: _Done = asyncio.Queue()
        # Twice as many as run at once, so that some always wait.
        workers = [asyncio.create_task(self._work(lines, done)) for _ in range(2 * self._engine.config.max_num_seqs)]
        for worker in workers:
            worker.add_done_callback(done.put_nowait)
        working = len(workers)
        try:
            while working:
                item = await done.get()
                if isinstance(item, Answered):
                    yield item
                else:
                    item.result()
                    working -= 1
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, lines: Iterator[Line], done: _Done) -> None:
        for line in lines:
            done.put_nowait(await self._answer(line))

    async def _answer(self, line: Line) -> Answered:
        try:
            call = read_call(line.content)
        except InvalidRequest as error:
            return Answered(unreadable(line.number, error), ok=False)
        request_id = secrets.token_hex(16)
        dialect = _DIALECTS.get(call.url)
        if dialect is None or call.method != "POST":
            text = f"Invalid URL ({shown(call.method)} {shown(call.url)})"
            return Answered(answered(line.number, call, _NO_ROUTE, request_id, no_such_route(text)), ok=False)
        try:
            body, chunk = await self._generate(dialect, call, request_id)
            whole = dialect.answer(body, request_id, int(time.time()), self._engine.format).whole(chunk)
        except Exception as bug:
            failure = bug if isinstance(bug, OctavoError) else internal(bug, log)
            if failure.kind in _FATAL:
                raise
            return Answered(answered(line.number, call, OPENAI[failure.kind], request_id, error_body(failure)), ok=False)
        tokens = sum(len(sample.token_ids) for sample in chunk.samples)
        return Answered(answered(line.number, call, _OK, request_id, whole), ok=True, tokens=tokens)

    async def _generate(self, dialect: Dialect, call: BatchCall, request_id: str) -> tuple[Asked, GenerateChunk]:
        config, body = self._engine.config, dialect.read(bytes(call.body))
        if body.model not in self._names:
            raise NotFound(f"The model '{shown(body.model)}' does not exist; this one is called '{self._names[-1]}'.")
        if body.stream:
            raise FieldError(
                "stream must be false or left out, because a line of a batch is answered whole.", "stream", "invalid_value"
            )
        try:
            return body, await self._engine.answer(body.request(config.name, config.version, request_id, self._engine.format))
        except OctavoError as error:
            raise body.named(error) from None
