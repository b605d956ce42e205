"""Conversations to prompts: what the model's chat template, or one of the caller's, makes of messages. Knows no model."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from octavo.engine.helper import Helper
from octavo.errors import InvalidRequest
from octavo.offline.prompts import Given
from octavo.protocol.prompts import checked_messages
from octavo.text.chat_template import ChatTemplate
from octavo.text.tokenizer import Tokenizer

Message = Mapping[str, Any]


class Spelling(NamedTuple):
    """How to spell conversations, in the words of vLLM's ``LLM.chat``. ``chat_template`` None is the model's own."""

    chat_template: str | None
    add_generation_prompt: bool
    continue_final_message: bool
    variables: Mapping[str, Any]


def spell(
    messages: Sequence[Message] | Sequence[Sequence[Message]], spelling: Spelling, tokenizer: Tokenizer, templates: Helper
) -> list[Given]:
    """One conversation's prompt, or several's, rendered by ``templates``.

    Raises ``InvalidRequest`` if a template refuses, or ``Unsupported``.
    """
    if spelling.continue_final_message and spelling.add_generation_prompt:
        raise InvalidRequest("continue_final_message needs add_generation_prompt to be false, because it adds nothing.")
    template = _template(spelling.chat_template, tokenizer, templates)
    told = {"add_generation_prompt": spelling.add_generation_prompt, **spelling.variables}
    given = []
    for conversation in _conversations(messages):
        plain = checked_messages([dict(message) for message in conversation])
        text = template.render(plain, told, spelling.continue_final_message)
        given.append(Given(tokenizer.encode(text, add_special_tokens=False), text))
    return given


def _template(own: str | None, tokenizer: Tokenizer, templates: Helper) -> ChatTemplate:
    template = tokenizer.chat_template if own is None else ChatTemplate(own, tokenizer.special_tokens, templates)
    if template is None:
        raise InvalidRequest("The model has no chat template; give one as chat_template, or use generate.")
    return template


def _conversations(messages: Sequence[Any]) -> list[Sequence[Message]]:
    """One conversation or several; each must be a list of messages."""
    several = len(messages) > 0 and not isinstance(messages[0], Mapping)
    conversations = list(messages) if several else [messages]
    if all(_is_conversation(conversation) for conversation in conversations):
        return conversations
    raise InvalidRequest('messages must be a list of messages like {"role": "user", "content": "Hello"}, or a list of such lists.')


def _is_conversation(messages: Any) -> bool:
    is_list = isinstance(messages, Sequence) and not isinstance(messages, str)
    return is_list and len(messages) > 0 and all(isinstance(message, Mapping) for message in messages)
