"""What a body of ``/v1/responses`` and its events are made of, under OpenAI's names and with its defaults. Knows no request."""

from typing import Any, Literal, TypeAlias

import msgspec

from octavo.protocol.openai.logprobs import TokenLogprob
from octavo.protocol.openai.templating import Effort


class InputDetails(msgspec.Struct):
    """Of the tokens of a prompt. Writing to the cache is never charged for, so none are counted as written."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(msgspec.Struct):
    """Of the tokens of an answer."""

    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct):
    """How many tokens a response took and made."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class OutputText(msgspec.Struct, tag_field="type", tag="output_text"):
    """A part of a message."""

    text: str
    annotations: list[None] = []
    logprobs: list[TokenLogprob] = []


class OutputMessage(msgspec.Struct, tag_field="type", tag="message"):
    """What is said to whoever asked."""

    id: str
    status: str
    content: list[OutputText]
    role: str = "assistant"


class ReasoningText(msgspec.Struct, tag_field="type", tag="reasoning_text"):
    """The only part of a reasoning item."""

    text: str


class ReasoningItem(msgspec.Struct, tag_field="type", tag="reasoning"):
    """What the model wrote for itself; nobody sums it up."""

    id: str
    status: str
    summary: list[None] = []
    content: list[ReasoningText] = []


class FunctionCall(msgspec.Struct, tag_field="type", tag="function_call"):
    """A call, which whoever asked answers with an output of the same ``call_id``."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: str


OutputItem: TypeAlias = OutputMessage | ReasoningItem | FunctionCall


class IncompleteDetails(msgspec.Struct):
    """Why an answer ends before its end."""

    reason: str


class ResponseError(msgspec.Struct):
    """Why there is no answer."""

    code: str
    message: str


class Reasoning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the model is to reason. What it does is sent as it is, which is as good as any ``summary``."""

    effort: Effort | None = None
    summary: Literal["auto"] | None = None


class TextFormat(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How an answer is spelled. A JSON schema is always kept to, ``strict`` or not."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class TextOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How an answer is formed."""

    format: TextFormat | None = None
    verbosity: str | None = None


class Response(msgspec.Struct, tag_field="object", tag="response", kw_only=True):
    """A response, as far as it has come; what nobody can ask for here has the value that says so."""

    id: str
    created_at: float
    status: str = "in_progress"
    model: str
    output: list[OutputItem] = []
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] = {}
    temperature: float
    top_p: float
    top_logprobs: int = 0
    usage: ResponseUsage | None = None
    user: str | None = None
    completed_at: float | None = None
    background: bool = False
    parallel_tool_calls: bool = True
    previous_response_id: None = None
    reasoning: Reasoning = Reasoning()
    service_tier: str = "default"
    store: bool = False
    text: TextOptions
    tool_choice: str | dict[str, Any] = "auto"
    tools: list[dict[str, Any]] = []
    truncation: str = "disabled"
