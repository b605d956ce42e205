"""``/v1/tokenize`` and ``/v1/detokenize``, vLLM's: texts or conversations to token ids, and back; and OpenAI's count of them."""

from typing import Any

import msgspec

from octavo.protocol.openai.body import decode
from octavo.protocol.openai.errors import FieldError
from octavo.protocol.openai.fields import NOTHING, check_refused
from octavo.protocol.openai.templating import conversation
from octavo.protocol.openai.tools import read_tools
from octavo.text.request import Conversation


class TokenizeRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A body: a ``prompt`` or ``messages``."""

    model: str
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None

    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None
    chat_template: msgspec.Raw = NOTHING
    mm_processor_kwargs: msgspec.Raw = NOTHING
    tools: list[dict[str, Any]] | None = None

    def text(self) -> str | Conversation:
        """What is to be tokenised. Raises ``FieldError``."""
        if (self.prompt is None) == (self.messages is None):
            raise FieldError("A request must have either prompt or messages.", "prompt", "missing_required_parameter")
        if self.messages is None:
            return self.prompt or ""
        return conversation(
            self.messages,
            template_kwargs=self.chat_template_kwargs,
            tools=read_tools(self.tools, None, None).told(),
            add_generation_prompt=self.add_generation_prompt,
            continue_final_message=self.continue_final_message,
            add_special_tokens=self.add_special_tokens,
        )


class DetokenizeRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A body."""

    model: str
    tokens: list[int]


class _Tokens(msgspec.Struct):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class _InputTokens(msgspec.Struct, tag_field="object", tag="response.input_tokens"):
    input_tokens: int


class _Text(msgspec.Struct):
    prompt: str


_TOKENIZE = msgspec.json.Decoder(TokenizeRequest)
_DETOKENIZE = msgspec.json.Decoder(DetokenizeRequest)


def read_tokenize(body: bytes) -> TokenizeRequest:
    """The request that ``body`` is. Raises ``InvalidRequest``."""
    request = decode(_TOKENIZE, body, {})
    check_refused(request)
    return request


def read_detokenize(body: bytes) -> DetokenizeRequest:
    """The request that ``body`` is. Raises ``InvalidRequest``."""
    return decode(_DETOKENIZE, body, {})


def write_tokens(token_ids: list[int], max_model_len: int, texts: list[str] | None) -> bytes:
    """The body that answers ``tokenize``; ``texts``: of each token, if they are asked for."""
    return msgspec.json.encode(_Tokens(len(token_ids), max_model_len, token_ids, texts))


def write_input_tokens(count: int) -> bytes:
    """The body that says how long the prompt of a response is."""
    return msgspec.json.encode(_InputTokens(count))


def write_text(text: str) -> bytes:
    """The body that answers ``detokenize``."""
    return msgspec.json.encode(_Text(text))
