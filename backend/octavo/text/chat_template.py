"""``ChatTemplate``: a model's Jinja template, rendered as Transformers renders it. Knows no tokenizer and imports no Transformers.

The source comes from the model's own files, never from a request, and runs in Jinja's immutable sandbox. Messages are plain JSON.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Namespace

from octavo.errors import InvalidRequest, shown

# What a template may call by name, as far as the model has it.
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class ChatTemplate:
    """One model's template. One that is no valid Jinja does not keep the model from serving: it refuses every conversation."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Compile ``source``. ``special_tokens``: texts by the names of ``SPECIAL_TOKENS``."""
        self._special_tokens = dict(special_tokens)
        self._template: Template | None
        try:
            self._template = _environment().from_string(source)
        except (TemplateSyntaxError, RecursionError):
            self._template = None

    def render(self, messages: list[dict[str, Any]]) -> str:
        """The prompt that ends where the assistant's answer begins. Raises ``InvalidRequest`` if the template refuses."""
        if self._template is None:
            raise InvalidRequest("The model's chat template is not valid Jinja, so it takes a prompt as text and no messages.")
        try:
            return self._template.render(
                messages=messages, tools=None, documents=None, add_generation_prompt=True, **self._special_tokens
            )
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


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now, "dict": _Dict(), "namespace": _Namespace}
    return environment


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
