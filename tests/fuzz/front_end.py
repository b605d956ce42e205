"""A front end without sockets: requests are read, tokenised and answered by an engine that makes up its tokens."""

import asyncio
from collections.abc import Iterable

from google.protobuf.message import DecodeError

from fuzz.http_cases import CHAT_COMPLETIONS, COMPLETIONS, RESPONSES
from octavo.config import ReasoningParser, ToolCallParser
from octavo.engine.client import Sink
from octavo.engine.messages import EngineInfo, EngineOutput, EngineRequest, FinishReason, TokenLogprobs
from octavo.protocol.openai import dialects
from octavo.protocol.openai.dialects import Dialect
from octavo.protocol.triton import TritonCall, TritonModel, TritonStop
from octavo.protocol.triton_reply import StopReply, TritonReply
from octavo.repository.tensors import INPUTS, OUTPUTS
from octavo.text.answer_format import AnswerFormat
from octavo.text.backlog import Backlog
from octavo.text.generator import Generation, Generator
from octavo.text.request import GenerateChunk
from octavo.text.tokenizer import Tokenizer
from octavo.wire import mc, pb

MODEL = "tiny"
INFO = EngineInfo(
    max_model_len=64, vocab_size=260, page_size=16, num_pages=64, dtype="float32", eos_token_ids=[256], weights_bytes=1,
    max_logprobs=20,
)  # fmt: skip
CONFIG = mc.ModelConfig(name=MODEL, backend="octavo", input=INPUTS, output=OUTPUTS)


DIALECTS = {COMPLETIONS: dialects.COMPLETIONS, CHAT_COMPLETIONS: dialects.CHAT, RESPONSES: dialects.RESPONSES}


class InventedEngine:
    """Has ``EngineClient``'s methods, and ends every request after a token or two that are no whole character."""

    def __init__(self) -> None:
        self._last = 0
        self.sinks: dict[int, Sink] = {}

    def next_id(self) -> int:
        self._last += 1
        return self._last

    def submit(self, request: EngineRequest, sink: Sink) -> None:
        self.sinks[request.id] = sink
        asyncio.get_running_loop().call_soon(self._answer, request)

    def abort(self, request_id: int) -> None:
        self.sinks.pop(request_id, None)

    def _answer(self, request: EngineRequest) -> None:
        asked, prompt = request.sampling, request.prompt_token_ids
        if (sink := self.sinks.get(request.id)) is not None:
            scores = None
            if asked.prompt_logprobs is not None:
                scores = [None, *(_scored(token, asked.prompt_logprobs) for token in prompt[1:])]
            logprobs = [_scored(200, asked.logprobs)] if asked.logprobs is not None else None
            sink.hear(
                EngineOutput(request.id, [200], logprobs=logprobs, num_cached_tokens=0, queue_seconds=0.0, prompt_logprobs=scores)
            )
        if (sink := self.sinks.pop(request.id, None)) is not None:
            sink.hear(EngineOutput(request.id, [97], FinishReason.LENGTH, logprobs=logprobs))


def _scored(token: int, count: int) -> TokenLogprobs:
    return TokenLogprobs([token] * (count + 1), [-1.0] * (count + 1), [1] * (count + 1))


class FrontEnd:
    """Answers one request after the other; must live inside a running event loop."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._engine = InventedEngine()
        self._tensors = TritonModel(CONFIG, 1)
        self._generator = Generator(self._engine, tokenizer, INFO)  # type: ignore[arg-type]
        self._tokenizer = tokenizer
        self._format = AnswerFormat(tokenizer, ToolCallParser.HERMES, ReasoningParser.QWEN3)

    async def infer(self, request: pb.ModelInferRequest, unary: bool = True) -> list[bytes]:
        """The messages of the answer. Raises what a transport would turn into an error."""
        call = self._tensors.read(request, unary)
        if isinstance(call, TritonStop):
            reply = StopReply(call, 1).streamed(GenerateChunk([], True, []))
            return [] if reply is None else [_parsed(reply)]
        generation = self._generator.generate(call.request, Backlog(1 << 20))
        try:
            return list(await self._messages(call, generation, unary))
        finally:
            generation.cancel()
            assert not self._engine.sinks, "a request stays open at the engine"

    async def complete(self, dialect: Dialect, body: bytes) -> list[bytes]:
        """The answer in a dialect of the OpenAI API, whole or in pieces. Raises what a transport would turn into an error."""
        asked = dialect.read(body)
        generation = self._generator.generate(asked.request(asked.model, 1, "id", self._format), Backlog(1 << 20))
        answer = dialect.answer(asked, "id", 1, self._format)
        try:
            if asked.stream:
                return [answer.piece(chunk) async for chunk in generation]
            return [answer.whole(await anext(generation))]
        finally:
            generation.cancel()
            assert not self._engine.sinks, "a request stays open at the engine"

    async def _messages(self, call: TritonCall, generation: Generation, unary: bool) -> Iterable[bytes]:
        reply = TritonReply(call, self._tokenizer.token_text)
        if unary:
            return [reply.unary(await anext(generation)).SerializeToString()]
        return [_parsed(reply.streamed(chunk)) async for chunk in generation]


def _parsed(message: bytes) -> bytes:
    """A message of a stream, which must be one of that type."""
    try:
        assert pb.ModelStreamInferResponse.FromString(message).HasField("infer_response")
    except DecodeError as error:
        raise RuntimeError("our own message is no protobuf") from error
    return message
