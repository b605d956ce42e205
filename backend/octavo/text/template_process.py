"""Chat templates rendered apart: ``python -m octavo.text.template_process``, and what it forks: a process for each template.

A template is a program of the model's. Jinja's immutable sandbox keeps it from Python's internals, the kernel keeps it from running
for ever and from filling the memory. Standard input is a socket on which one end of a connection comes for each process. Each
gets a template's source, then what to tell it, as JSON; it answers with ``TEXT`` and the prompt or ``REFUSAL`` and a sentence.
"""

import json
import os
import socket
from datetime import datetime
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Namespace

from octavo.engine.forks import fork_for_each, limit_memory, limited_time
from octavo.engine.lifeline import name_process
from octavo.errors import InvalidRequest, shown
from octavo.text.rendering import MOST_BYTES, MOST_CHARACTERS, MOST_SECONDS, REFUSAL, TEXT, over_limit


def main() -> None:
    """Fork whenever a connection comes; end with the process that opens them."""
    name_process("octavo-template")
    fork_for_each(socket.socket(fileno=os.dup(0)), follow)


def follow(connection: Connection) -> None:
    """Render one template whenever ``connection`` says what for, until it is closed."""
    limit_memory(MOST_BYTES)
    try:
        source = json.loads(connection.recv_bytes())
        with limited_time(MOST_SECONDS):
            template = _compiled(source)
        while True:
            connection.send_bytes(_answer(template, connection.recv_bytes()))
    except (EOFError, OSError, MemoryError):
        return


def _compiled(source: str) -> Template | None:
    try:
        return _environment().from_string(source)
    except (TemplateSyntaxError, RecursionError):
        return None


def _answer(template: Template | None, variables: bytes) -> bytes:
    try:
        with limited_time(MOST_SECONDS):
            return TEXT + _rendered(template, variables).encode("utf-8", "surrogatepass")
    except InvalidRequest as error:
        return REFUSAL + str(error).encode("utf-8", "surrogatepass")
    except MemoryError:
        return REFUSAL + str(over_limit()).encode()


def _rendered(template: Template | None, variables: bytes) -> str:
    if template is None:
        raise InvalidRequest("The model's chat template is not valid Jinja, so it takes a prompt as text and no messages.")
    try:
        return _joined(template, json.loads(variables))
    except (InvalidRequest, MemoryError):
        raise
    except TemplateError as error:
        reason = shown(str(error.message or "").rstrip("."))
        raise InvalidRequest(f"The model's chat template refuses these messages: {reason}.") from error
    except Exception as error:  # a template is a program of its own and may fail in any way
        raise InvalidRequest("The model's chat template cannot be applied to these messages.") from error


def _joined(template: Template, variables: dict[str, Any]) -> str:
    pieces, size = [], 0
    for piece in template.generate(**variables):
        size += len(piece)
        if size > MOST_CHARACTERS:
            raise over_limit()
        pieces.append(piece)
    return "".join(pieces)


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


if __name__ == "__main__":
    main()
