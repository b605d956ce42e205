"""``ResponsesAnswer``: answers of ``/v1/responses``, whole or as named events. Reads no body."""

import time
from typing import Any

import msgspec

from octavo.errors import OctavoError
from octavo.protocol.openai.errors import error_detail
from octavo.protocol.openai.logprobs import Speller, TokenLogprob
from octavo.protocol.openai.response_objects import (
    FunctionCall,
    IncompleteDetails,
    InputDetails,
    OutputDetails,
    OutputItem,
    OutputMessage,
    OutputText,
    ReasoningItem,
    ReasoningText,
    Response,
    ResponseError,
    ResponseUsage,
)
from octavo.protocol.openai.responses import ResponsesRequest
from octavo.protocol.openai.sse import BLANK, NUMBER, NumberedTextEvent, named_event
from octavo.text.answer_format import AnswerFormat, AnswerParser
from octavo.text.pieces import CallArguments, CallBegun, Content, Piece, Thought
from octavo.text.request import GenerateChunk, SampleDelta

_encode = msgspec.json.Encoder().encode
_DELTA = "response.output_text.delta"


class _Named(msgspec.Struct):
    """An event; its name and number stand in it."""

    type: str
    sequence_number: int


class _OfResponse(_Named):
    response: Response


class _OfItem(_Named):
    output_index: int
    item: OutputItem


class _OfPart(_Named):
    item_id: str
    output_index: int
    content_index: int
    part: OutputText | ReasoningText


class _TextDelta(_Named):
    item_id: str
    output_index: int
    content_index: int
    delta: str
    logprobs: list[TokenLogprob]


class _TextDone(_Named):
    item_id: str
    output_index: int
    content_index: int
    text: str
    logprobs: list[TokenLogprob]


class _ThoughtDelta(_Named):
    item_id: str
    output_index: int
    content_index: int
    delta: str


class _ThoughtDone(_Named):
    item_id: str
    output_index: int
    content_index: int
    text: str


class _ArgumentsDelta(_Named):
    item_id: str
    output_index: int
    delta: str


class _ArgumentsDone(_Named):
    item_id: str
    output_index: int
    arguments: str


class _Failed(_Named):
    code: str | None
    message: str
    param: str | None


class ResponsesAnswer:
    """Words one answer, whole or as events. Its items follow one another: reasoning, messages with one part of text, calls.

    ``_item``: the one that is open, the last of the response's output; ``_texts`` and ``_logprobs`` are what it has so far.
    ``_unplaced``: log probabilities of tokens whose text has not come. ``_further``: the event of more text of the last message.
    """

    def __init__(self, body: ResponsesRequest, request_id: str, created: int, answers: AnswerFormat) -> None:
        """``created``: seconds since the epoch."""
        use = body.tool_use
        self._id = request_id
        self._answers, self._tools, self._parallel = answers, use.format(answers), use.parallel
        self._parser: AnswerParser | None = None
        self._speller = Speller(answers.tokenizer, as_ids=False)
        self._shows_logprobs = body.shows_logprobs
        self._numbers = 0
        self._begun = False
        self._tokens = 0
        self._item: OutputItem | None = None
        self._texts: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._unplaced: list[TokenLogprob] = []
        self._further: NumberedTextEvent
        self._response = body.response(f"resp_{request_id}", created)

    def whole(self, chunk: GenerateChunk) -> bytes:
        """The body of a reply."""
        self._take(chunk)
        return _encode(self._response)

    def piece(self, chunk: GenerateChunk) -> bytes:
        """The events that tell what is new, and after the last of it that it was."""
        events = [] if self._begun else self._beginning()
        events += self._take(chunk)
        if chunk.final:
            events.append(self._event(_OfResponse, f"response.{self._response.status}", self._response))
        return b"".join(events)

    def failure(self, error: OctavoError) -> bytes:
        """The events that end a stream that has begun."""
        detail = error_detail(error)
        events = [] if self._begun else self._beginning()
        events.append(self._event(_Failed, "error", detail.code, detail.message, detail.param))
        self._response.status, self._response.error = "failed", ResponseError(detail.code or "server_error", detail.message)
        events.append(self._event(_OfResponse, "response.failed", self._response))
        return b"".join(events)

    def _beginning(self) -> list[bytes]:
        self._begun = True
        return [
            self._event(_OfResponse, "response.created", self._response),
            self._event(_OfResponse, "response.in_progress", self._response),
        ]

    def _take(self, chunk: GenerateChunk) -> list[bytes]:
        """The events of what is new, which the response then has; after the last of it the response is over."""
        (sample,) = chunk.samples
        if not self._tokens:
            self._parser = self._answers.parser(self._tools, self._parallel, chunk.prompt_token_ids[0])
        self._tokens += len(sample.token_ids)
        if self._shows_logprobs:
            self._unplaced += [self._speller.token(entry) for entry in sample.logprobs or ()]
        events: list[bytes] = []
        for piece in self._pieces(sample, chunk.final):
            events += self._told(piece)
        if chunk.final:
            if self._item is None:
                events += self._told(Content(""))
            events += self._end(chunk)
        return events

    def _pieces(self, sample: SampleDelta, final: bool) -> list[Piece]:
        if self._parser is None:
            return [Content(sample.text)] if sample.text or self._unplaced else []
        return self._parser.push(sample.text, sample.token_ids, final)

    def _told(self, piece: Piece) -> list[bytes]:
        """The events of more of the item that is open, or of a new one if it is of another kind."""
        events: list[bytes] = []
        match piece:
            case Thought(text):
                if not isinstance(self._item, ReasoningItem):
                    events += self._opened(ReasoningItem(self._name("rs"), "in_progress"))
                events.append(self._of_item(_ThoughtDelta, "response.reasoning_text.delta", 0, text))
            case Content(text):
                if not isinstance(self._item, OutputMessage):
                    events += self._opened(OutputMessage(self._name("msg"), "in_progress", []))
                logprobs, self._unplaced = self._unplaced, []
                self._logprobs += logprobs
                if logprobs:
                    events.append(self._of_item(_TextDelta, _DELTA, 0, text, logprobs))
                elif text:
                    events.append(self._further.of(self._next_number(), text))
            case CallBegun(name):
                assert self._tools is not None
                return self._opened(FunctionCall(self._name("fc"), self._tools.call_id(), name, "", "in_progress"))
            case CallArguments(text):
                events.append(self._of_item(_ArgumentsDelta, "response.function_call_arguments.delta", text))
        self._texts.append(piece.text)
        return events

    def _opened(self, item: OutputItem) -> list[bytes]:
        events = self._closed("completed")
        self._item, self._texts, self._logprobs = item, [], []
        self._response.output.append(item)
        events.append(self._event(_OfItem, "response.output_item.added", len(self._response.output) - 1, item))
        if isinstance(item, ReasoningItem):
            events.append(self._of_item(_OfPart, "response.content_part.added", 0, ReasoningText("")))
        elif isinstance(item, OutputMessage):
            events.append(self._of_item(_OfPart, "response.content_part.added", 0, OutputText("")))
            delta = _TextDelta(_DELTA, NUMBER, item.id, len(self._response.output) - 1, 0, BLANK, [])
            self._further = NumberedTextEvent(named_event(_DELTA, _encode(delta)))
        return events

    def _closed(self, status: str) -> list[bytes]:
        """The events that end the item that is open."""
        item, text = self._item, "".join(self._texts)
        match item:
            case None:
                return []
            case ReasoningItem():
                item.content = [ReasoningText(text)]
                events = [
                    self._of_item(_ThoughtDone, "response.reasoning_text.done", 0, text),
                    self._of_item(_OfPart, "response.content_part.done", 0, item.content[0]),
                ]
            case OutputMessage():
                item.content = [OutputText(text, logprobs=self._logprobs)]
                events = [
                    self._of_item(_TextDone, "response.output_text.done", 0, text, self._logprobs),
                    self._of_item(_OfPart, "response.content_part.done", 0, item.content[0]),
                ]
            case FunctionCall():
                item.arguments = text
                events = [self._of_item(_ArgumentsDone, "response.function_call_arguments.done", text)]
        item.status = status
        events.append(self._event(_OfItem, "response.output_item.done", len(self._response.output) - 1, item))
        return events

    def _end(self, chunk: GenerateChunk) -> list[bytes]:
        """The response has its answer, which is incomplete if it has all the tokens that it may have."""
        response, prompt_tokens = self._response, len(chunk.prompt_token_ids[0])
        if chunk.samples[0].finish_reason == "length":
            response.status, response.incomplete_details = "incomplete", IncompleteDetails("max_output_tokens")
        else:
            response.status, response.completed_at = "completed", time.time()
        reasoning = self._parser.reasoning_tokens if self._parser is not None else 0
        response.usage = ResponseUsage(
            prompt_tokens,
            InputDetails(chunk.num_cached_tokens),
            self._tokens,
            OutputDetails(reasoning),
            prompt_tokens + self._tokens,
        )
        return self._closed(response.status)

    def _name(self, kind: str) -> str:
        """What the next item is called."""
        number = len(self._response.output)
        return f"{kind}_{self._id}_{number}" if number else f"{kind}_{self._id}"

    def _of_item(self, kind: type[_Named], name: str, *members: Any) -> bytes:
        assert self._item is not None
        return self._event(kind, name, self._item.id, len(self._response.output) - 1, *members)

    def _event(self, kind: type[_Named], name: str, *members: Any) -> bytes:
        return named_event(name, _encode(kind(name, self._next_number(), *members)))

    def _next_number(self) -> int:
        number, self._numbers = self._numbers, self._numbers + 1
        return number
