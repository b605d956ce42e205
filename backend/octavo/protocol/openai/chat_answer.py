"""``ChatAnswer``: answers of ``/v1/chat/completions``, whole or as chunks. Reads no body."""

from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from octavo.errors import OctavoError
from octavo.protocol.openai.chat import ChatRequest
from octavo.protocol.openai.errors import error_body
from octavo.protocol.openai.logprobs import ChatLogprobs, PromptLogprob, Speller
from octavo.protocol.openai.sse import BLANK, DONE, TextEvent, event
from octavo.protocol.openai.tools import Mode
from octavo.protocol.openai.usage import Usage
from octavo.text.answer_format import AnswerFormat, AnswerParser
from octavo.text.pieces import CallArguments, CallBegun, Content, Piece, Thought
from octavo.text.request import GenerateChunk, SampleDelta


class _Function(msgspec.Struct):
    arguments: str
    name: str | UnsetType = UNSET


class _Call(msgspec.Struct):
    function: _Function
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    index: int | UnsetType = UNSET


class _Message(msgspec.Struct):
    """``reasoning`` is what vLLM calls ``reasoning_content`` now; clients of either name find it."""

    content: str | None
    role: str = "assistant"
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[_Call] | UnsetType = UNSET


class _Choice(msgspec.Struct):
    index: int
    message: _Message
    logprobs: ChatLogprobs | None
    finish_reason: str | None
    stop_reason: int | str | None
    token_ids: list[int] | UnsetType = UNSET


class _Completion(msgspec.Struct, tag_field="object", tag="chat.completion"):
    id: str
    created: int
    model: str
    choices: list[_Choice]
    usage: Usage
    prompt_logprobs: list[dict[int, PromptLogprob] | None] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class _Delta(msgspec.Struct):
    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[_Call] | UnsetType = UNSET


class _ChunkChoice(msgspec.Struct):
    index: int
    delta: _Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | UnsetType | None = UNSET
    token_ids: list[int] | UnsetType = UNSET


class _Chunk(msgspec.Struct, tag_field="object", tag="chat.completion.chunk"):
    id: str
    created: int
    model: str
    choices: list[_ChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


_encode = msgspec.json.Encoder().encode


class _State:
    """How far one sample has come."""

    def __init__(self, parser: AnswerParser | None, further: TextEvent | None) -> None:
        """``parser`` takes it apart, None if there is nothing to part; ``further``: the event of more text, if it has just that."""
        self.parser, self.further = parser, further
        self.calls = 0
        self.ended = False


class _Told(NamedTuple):
    """What of an answer's parts is shown, and how."""

    thoughts: bool
    named: bool


class ChatAnswer:
    """Words one answer, whole or in pieces. A stream's first chunk of a choice has its role and no text, as OpenAI's."""

    def __init__(self, body: ChatRequest, request_id: str, created: int, answers: AnswerFormat) -> None:
        """``created``: seconds since the epoch."""
        options, use = body.stream_options, body.tool_use
        self._id, self._created, self._model = f"chatcmpl-{request_id}", created, body.model
        self._answers, self._tools, self._parallel = answers, use.format(answers), use.parallel
        self._told = _Told(body.include_reasoning is not False, use.mode is Mode.REQUIRED and use.name is not None)
        self._speller = Speller(answers.tokenizer, bool(body.return_tokens_as_token_ids))
        self._shows_logprobs, self._shows_ids = bool(body.logprobs), bool(body.return_token_ids)
        self._usage_at_end = options is not None and bool(options.include_usage)
        self._usage: UnsetType | None = None if self._usage_at_end else UNSET
        self._usage_always = options is not None and bool(options.continuous_usage_stats)
        self._only_text = bool(body.stream) and not (self._shows_logprobs or self._shows_ids or self._usage_always)
        self._states: dict[int, _State] = {}
        self._tokens = 0

    def whole(self, chunk: GenerateChunk) -> bytes:
        """The body of a reply."""
        scored = chunk.prompt_logprobs[0] if chunk.prompt_logprobs else None
        choices = [self._choice(chunk, index, sample) for index, sample in enumerate(chunk.samples)]
        self._tokens = sum(len(sample.token_ids) for sample in chunk.samples)
        return _encode(
            _Completion(
                self._id,
                self._created,
                self._model,
                choices,
                self._usage_of(chunk),
                UNSET if scored is None else self._speller.prompt(scored),
                chunk.prompt_token_ids[0] if self._shows_ids else UNSET,
            )
        )

    def piece(self, chunk: GenerateChunk) -> bytes:
        """The events that tell what is new, and after the last of it that it was."""
        events: list[bytes] = []
        for index, sample in enumerate(chunk.samples):
            state = self._states.get(index)
            if (state is None or not state.ended) and (sample.token_ids or sample.finish_reason is not None):
                self._tokens += len(sample.token_ids)
                self._tell(events, chunk, index, sample)
        if chunk.final and self._usage_at_end:
            events.append(event(_encode(_Chunk(self._id, self._created, self._model, [], self._usage_of(chunk)))))
        return b"".join((*events, DONE)) if chunk.final else b"".join(events)

    def failure(self, error: OctavoError) -> bytes:
        """The events that end a stream that has begun."""
        return event(error_body(error)) + DONE

    def _begin(self, chunk: GenerateChunk, index: int) -> _State:
        parser = self._answers.parser(self._tools, self._parallel, chunk.prompt_token_ids[0])
        further = TextEvent(self._event(chunk, _ChunkChoice(index, _Delta(UNSET, BLANK)))) if self._only_text else None
        state = self._states[index] = _State(parser, further)
        return state

    def _choice(self, chunk: GenerateChunk, index: int, sample: SampleDelta) -> _Choice:
        state = self._begin(chunk, index)
        message = self._message(state, _pieces(state, sample))
        ids = sample.token_ids if self._shows_ids else UNSET
        reason = self._reason(state, sample)
        return _Choice(index, message, self._logprobs(sample), reason, sample.stop_reason, ids)

    def _message(self, state: _State, pieces: list[Piece]) -> _Message:
        texts: dict[type, list[str]] = {Thought: [], Content: []}
        calls: list[tuple[str, list[str]]] = []
        for piece in pieces:
            match piece:
                case CallBegun(name):
                    calls.append((name, []))
                case CallArguments(text):
                    calls[-1][1].append(text)
                case _:
                    texts[type(piece)].append(piece.text)
        state.calls = len(calls)
        content, thoughts = "".join(texts[Content]), "".join(texts[Thought])
        message = _Message(content if content or not (calls or thoughts) else None)
        if thoughts and self._told.thoughts:
            message.reasoning_content = message.reasoning = thoughts
        if calls:
            message.tool_calls = [_Call(_Function("".join(text), name), self._call_id(), "function") for name, text in calls]
        return message

    def _tell(self, events: list[bytes], chunk: GenerateChunk, index: int, sample: SampleDelta) -> None:
        """The role, what there is of the parts, the end: each in a chunk of its own, as far as there is something to say."""
        state = self._states.get(index)
        if state is None:
            prompt = chunk.prompt_token_ids[0] if self._shows_ids and not self._states else UNSET
            state = self._begin(chunk, index)
            events.append(self._event(chunk, _ChunkChoice(index, _Delta("assistant", "")), prompt))
        untold: SampleDelta | None = sample
        for piece in _pieces(state, sample):
            if state.further is not None and isinstance(piece, Content):
                events.append(state.further.of(piece.text))
            elif (delta := self._delta(state, piece)) is not None:
                events.append(self._event(chunk, self._part(index, delta, untold)))
                untold = None
        if untold is not None and sample.token_ids and (self._shows_logprobs or self._shows_ids):
            events.append(self._event(chunk, self._part(index, _Delta(UNSET, ""), untold)))
        if sample.finish_reason is not None:
            state.ended = True
            choice = _ChunkChoice(index, _Delta(), None, self._reason(state, sample), sample.stop_reason)
            events.append(self._event(chunk, choice))

    def _part(self, index: int, delta: _Delta, sample: SampleDelta | None) -> _ChunkChoice:
        """One part; what there is to say of the tokens of a ``sample`` is said with the first part that they make."""
        if sample is None:
            return _ChunkChoice(index, delta)
        return _ChunkChoice(index, delta, self._logprobs(sample), token_ids=sample.token_ids if self._shows_ids else UNSET)

    def _delta(self, state: _State, piece: Piece) -> _Delta | None:
        match piece:
            case Content(text):
                return _Delta(UNSET, text)
            case Thought(text):
                return _Delta(reasoning_content=text, reasoning=text) if self._told.thoughts else None
            case CallBegun(name):
                state.calls += 1
                return _Delta(tool_calls=[_Call(_Function("", name), self._call_id(), "function", state.calls - 1)])
            case CallArguments(text):
                return _Delta(tool_calls=[_Call(_Function(text), index=state.calls - 1)])

    def _reason(self, state: _State, sample: SampleDelta) -> str | None:
        """A call that had to be of one function ends as text does, which is how OpenAI has it."""
        calls = state.calls and not self._told.named and sample.finish_reason == "stop"
        return "tool_calls" if calls else sample.finish_reason

    def _call_id(self) -> str:
        assert self._tools is not None
        return self._tools.call_id()

    def _event(self, chunk: GenerateChunk, choice: _ChunkChoice, prompt: list[int] | UnsetType = UNSET) -> bytes:
        usage = self._usage_of(chunk) if self._usage_always else self._usage
        return event(_encode(_Chunk(self._id, self._created, self._model, [choice], usage, prompt)))

    def _usage_of(self, chunk: GenerateChunk) -> Usage:
        parsers = [state.parser for state in self._states.values()]
        reasoning = None if self._answers.reasoning is None else sum(parser.reasoning_tokens for parser in parsers if parser)
        return Usage.of(chunk, self._tokens, reasoning)

    def _logprobs(self, sample: SampleDelta) -> ChatLogprobs | None:
        return self._speller.chat(sample.logprobs or ()) if self._shows_logprobs else None


def _pieces(state: _State, sample: SampleDelta) -> list[Piece]:
    if state.parser is None:
        return [Content(sample.text)] if sample.text else []
    return state.parser.push(sample.text, sample.token_ids, sample.finish_reason is not None)
