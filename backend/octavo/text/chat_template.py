"""``ChatTemplate``: a model's Jinja template, rendered as Transformers renders it. Knows no tokenizer and imports no Transformers.

The source comes from the model's own files, never from a request, and runs in Jinja's immutable sandbox, for a time and to a
size that are limited. Messages are plain JSON.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import SecurityError
from jinja2.utils import Namespace

from octavo.errors import InvalidRequest, shown
from octavo.text.template_limits import LimitedEnvironment, compiled, rendered

# What a template may call by name, as far as the model has it.
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# What a template is told by a name of its own, and no request can call anything else.
RESERVED = frozenset({"messages", "tools", "documents", "add_generation_prompt", *SPECIAL_TOKENS})
_END_OF_FINAL_MESSAGE = "OCTAVO-END-OF-FINAL-MESSAGE "


class ChatTemplate:
    """One model's template. One that is no valid Jinja does not keep the model from serving: it refuses every conversation."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Compile ``source``. ``special_tokens``: texts by the names of ``SPECIAL_TOKENS``."""
        self.source = source
        self._special_tokens = dict(special_tokens)
        self._knows_developers = "developer" in source
        self._template: Template | None
        try:
            self._template = compiled(_environment(), source)
        except (TemplateSyntaxError, RecursionError):
            self._template = None

    def render(
        self, messages: list[dict[str, Any]], variables: Mapping[str, Any] | None = None, continue_final_message: bool = False
    ) -> str:
        """The prompt. It ends where the assistant's answer begins, or with ``continue_final_message`` where the last message ends.

        ``variables``: what the template is told beside the messages, over the defaults: no tools, no documents, and a generation
        prompt. Raises ``InvalidRequest`` if the template refuses, or takes too long.
        """
        if self._template is None:
            raise InvalidRequest("The model's chat template is not valid Jinja, so it takes a prompt as text and no messages.")
        told = {"tools": None, "documents": None, "add_generation_prompt": not continue_final_message, **(variables or {})}
        messages = [self._addressed(message) for message in messages]
        if continue_final_message:
            messages[-1] = messages[-1] | {"content": (messages[-1]["content"] or "") + _END_OF_FINAL_MESSAGE}
        text = self._rendered(self._template, told | self._special_tokens | {"messages": messages})
        return _up_to_final_message(text) if continue_final_message else text

    def _addressed(self, message: dict[str, Any]) -> dict[str, Any]:
        """Developers speak to templates that do not know them as the system does, as OpenAI's clients expect."""
        known = self._knows_developers or message.get("role") != "developer"
        return message if known else message | {"role": "system"}

    def _rendered(self, template: Template, variables: dict[str, Any]) -> str:
        try:
            return rendered(template, variables)
        except InvalidRequest:
            raise
        except TemplateError as error:
            reason = shown(str(error.message or "").rstrip("."))
            raise InvalidRequest(f"The model's chat template refuses these messages: {reason}.") from error
        except Exception as error:  # a template is a program of its own and may fail in any way
            raise InvalidRequest("The model's chat template cannot be applied to these messages.") from error


class _Generation(Extension):
    """``{% generation %}`` marks what an assistant has said; for rendering it means nothing."""

    tags = {"generation"}  # noqa: RUF012  Jinja's own convention

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """Jinja's, without the names that lead into Python."""

    def __init__(*args: Any, **fields: Any) -> None:
        """``fields`` by name, one of which may be ``self``."""
        self, *rest = args
        given = dict(*rest, **fields)
        for name in given:
            _check_name(name)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        """``{% set space.name = value %}``."""
        _check_name(name)
        super().__setitem__(name, value)


class _Dict:
    """``dict`` as a template may use it."""

    def __call__(self, *args: Any, **items: Any) -> dict[Any, Any]:
        """``dict(a=1)``."""
        return dict(*args, **items)


def _environment() -> LimitedEnvironment:
    environment = LimitedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now, "dict": _Dict(), "namespace": _Namespace}
    return environment


def _up_to_final_message(text: str) -> str:
    """The text up to where the marked message ends, with the space before that only if the template kept it."""
    place = text.rfind(_END_OF_FINAL_MESSAGE.rstrip())
    if place < 0:
        raise InvalidRequest("The model's chat template leaves the final message out, so it cannot be continued.")
    return text[:place] if text.startswith(_END_OF_FINAL_MESSAGE, place) else text[:place].rstrip()


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON for a model to read; Jinja's own filter escapes it for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(layout: str) -> str:
    return datetime.now().strftime(layout)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError("a namespace holds no names that begin with an underscore")
