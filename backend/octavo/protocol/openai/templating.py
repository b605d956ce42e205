"""Conversations of every route that takes messages: what their chat template is told beside them. Knows no body."""

from typing import Any, Literal

from octavo.errors import InvalidRequest, Unsupported
from octavo.protocol.openai.errors import FieldError
from octavo.protocol.prompts import checked_messages
from octavo.text.answer_format import AnswerFormat
from octavo.text.chat_template import RESERVED
from octavo.text.request import Conversation

# OpenAI's, and vLLM's "max".
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
# Each takes a template some microseconds, however short it is.
MAX_MESSAGES = 16384


def conversation(
    messages: list[dict[str, Any]],
    field: str = "messages",
    template_kwargs: dict[str, Any] | None = None,
    documents: list[dict[str, Any]] | None = None,
    tools: list[dict[str, Any]] | None = None,
    add_generation_prompt: bool | None = None,
    continue_final_message: bool | None = None,
    add_special_tokens: bool | None = None,
    effort: Effort | None = None,
) -> Conversation:
    """The messages of ``field`` as a prompt. Raises ``FieldError``."""
    if not messages:
        raise FieldError(f"{field} must hold at least one message.", field, "empty_array")
    if len(messages) > MAX_MESSAGES:
        raise FieldError(f"{field} must hold at most {MAX_MESSAGES} messages.", field, "array_above_max_length")
    if continue_final_message and add_generation_prompt:
        text = "add_generation_prompt must be false or left out if continue_final_message is true."
        raise FieldError(text, "add_generation_prompt", "invalid_value")
    if taken := sorted(RESERVED & set(template_kwargs or ())):
        text = f"chat_template_kwargs must not hold '{taken[0]}', which the template is told by the rest of the request."
        raise FieldError(text, "chat_template_kwargs", "invalid_value")
    variables = dict(template_kwargs or {})
    if effort is not None:  # as vLLM tells it
        variables = {"enable_thinking": effort != "none"} | variables | {"reasoning_effort": effort}
    if documents is not None:
        variables["documents"] = documents
    if tools is not None:
        variables["tools"] = tools
    if add_generation_prompt is not None:
        variables["add_generation_prompt"] = add_generation_prompt
    return Conversation(_checked(messages, field), variables, bool(continue_final_message), bool(add_special_tokens))


def check_effort(effort: Effort | None, field: str, answers: AnswerFormat) -> None:
    """``field`` has to have an effect on what the model answers. Raises ``FieldError``."""
    unthinking = effort == "none" and answers.reasoning is None
    if effort is not None and not unthinking and not answers.takes_effort:
        text = f"{field} must be left out, because the model's chat template asks for no effort."
        raise FieldError(text, field.partition(".")[0], "unsupported_value")


def _checked(messages: list[dict[str, Any]], field: str) -> list[dict[str, Any]]:
    try:
        return checked_messages(messages, field)
    except InvalidRequest as error:
        raise FieldError(str(error), field, "invalid_value") from None
    except Unsupported as error:
        raise FieldError(str(error), field, "unsupported_value") from None
