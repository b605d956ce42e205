"""``ChatTemplate``: a model's Jinja template, rendered as Transformers renders it. Knows no tokenizer and imports no Transformers.

The source comes from the model's own files, never from a request. It is rendered in another process. Messages are plain JSON.
"""

import re
from collections.abc import Mapping
from typing import Any

from octavo.engine.helper import Helper
from octavo.errors import InvalidRequest
from octavo.text.rendering import Renderer, template_helper

# What a template may call by name, as far as the model has it.
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# What a template is told by a name of its own, and no request can call anything else.
RESERVED = frozenset({"messages", "tools", "documents", "add_generation_prompt", *SPECIAL_TOKENS})
# How a template asks whether a message has content: ``message['content'] is none``, ``m.content != None``.
_ASKS_FOR_CONTENT = re.compile(r"""\bcontent\b['")\]]*\s*(?:\bis(?:\s+not)?\s+|[!=]=\s*)none\b""", re.IGNORECASE)
_END_OF_FINAL_MESSAGE = "OCTAVO-END-OF-FINAL-MESSAGE "


class ChatTemplate:
    """One model's template. One that is no valid Jinja does not keep the model from serving: it refuses every conversation."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], helper: Helper | None = None) -> None:
        """Nothing runs before ``start`` or the first ``render``. ``special_tokens``: texts by the names of ``SPECIAL_TOKENS``.

        ``helper``: forks what renders it; one of its own if that is None.
        """
        self.source = source
        self._special_tokens = dict(special_tokens)
        self._knows_developers = "developer" in source
        self._asks_for_content = _ASKS_FOR_CONTENT.search(source) is not None
        self._renderer = Renderer(source, helper or template_helper())

    def start(self) -> None:
        """Have what renders started, so that the first conversation need not wait for it."""
        self._renderer.start()

    def render(
        self, messages: list[dict[str, Any]], variables: Mapping[str, Any] | None = None, continue_final_message: bool = False
    ) -> str:
        """The prompt. It ends where the assistant's answer begins, or with ``continue_final_message`` where the last message ends.

        ``variables``: what the template is told beside the messages, over the defaults: no tools, no documents, and a generation
        prompt. Raises ``InvalidRequest`` if the template refuses, or takes too much time or memory. Thread-safe.
        """
        told = {"tools": None, "documents": None, "add_generation_prompt": not continue_final_message, **(variables or {})}
        messages = [self._adapted(message) for message in messages]
        if continue_final_message:
            messages[-1] = messages[-1] | {"content": (messages[-1]["content"] or "") + _END_OF_FINAL_MESSAGE}
        text = self._renderer.render(told | self._special_tokens | {"messages": messages})
        return _up_to_final_message(text) if continue_final_message else text

    def _adapted(self, message: dict[str, Any]) -> dict[str, Any]:
        """What OpenAI's clients send as the template can read it.

        Developers speak to templates that do not know them as the system does. No content, as beside calls, is an empty text to
        those that do not ask: they would fail, or write "None".
        """
        if not self._knows_developers and message.get("role") == "developer":
            message = message | {"role": "system"}
        if not self._asks_for_content and message.get("content") is None:
            message = message | {"content": ""}
        return message


def _up_to_final_message(text: str) -> str:
    """The text up to where the marked message ends, with the space before that only if the template kept it."""
    place = text.rfind(_END_OF_FINAL_MESSAGE.rstrip())
    if place < 0:
        raise InvalidRequest("The model's chat template leaves the final message out, so it cannot be continued.")
    return text[:place] if text.startswith(_END_OF_FINAL_MESSAGE, place) else text[:place].rstrip()
