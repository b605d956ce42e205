"""``ToolFormat``: how a family of models writes calls of tools, to be read and to be asked for. Knows no family."""

import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from octavo.text.pieces import Pieces
from octavo.text.tokenizer import Tokenizer

# How the grammar library is told how many blanks there may be: endless ones are valid JSON, and what a model may fall into.
JSON_OPTIONS: dict[str, Any] = {"x-guidance": {"whitespace_pattern": r"[ \n\t]{0,20}"}}


class Tool(NamedTuple):
    """A function that a model may call. ``parameters``: the JSON schema of its arguments, an object."""

    name: str
    parameters: dict[str, Any]


class ToolParser(Protocol):
    """Reads one answer, character by character, and tells ``Pieces`` of it.

    Nothing is held back but what may be the beginning of a call. What proves to be no call is content, to the last character;
    arguments that prove to be no JSON after they have begun are told as they are.
    """

    def step(self, character: str) -> None:
        """Take in one more character."""

    def finish(self) -> None:
        """Nothing follows."""


class ToolFormat(ABC):
    """One format. ``markers``: the special tokens that belong to it, which therefore have to be in the text."""

    markers: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def parser(self, pieces: Pieces) -> ToolParser:
        """A parser of one answer."""

    @abstractmethod
    def grammar(self, tools: Sequence[Tool], parallel: bool, marker: Callable[[str], str]) -> str:
        """Rules of a Lark grammar whose ``calls`` are one call of ``tools`` or, if ``parallel``, more.

        ``marker`` spells a text that may be a special token. Raises ``InvalidRequest`` for parameters that cannot be kept to.
        """

    def call_id(self) -> str:
        """A name for a call that no other has."""
        return f"call_{secrets.token_hex(12)}"


def lark_marker(tokenizer: Tokenizer, text: str) -> str:
    """``text`` as a Lark grammar has it: by its id if it is a special token."""
    number = tokenizer.special_id(text)
    return quoted(text) if number is None else f"<[{number}]>"


def quoted(text: str) -> str:
    """``text`` as a string of a Lark grammar."""
    return json.dumps(text)


def json_value(schema: dict[str, Any]) -> str:
    """JSON of ``schema``, as a rule's part."""
    return f"%json {json.dumps(schema | JSON_OPTIONS)}"


def json_rules(tools: Sequence[Tool], arguments: str) -> str:
    """The rule ``call``: a JSON object with the name of one of ``tools`` and, under ``arguments``, what it takes."""
    rules = [f"call: {' | '.join(f'call_{number}' for number in range(len(tools)))}"]
    for number, tool in enumerate(tools):
        head = quoted(f'{{"name": {json.dumps(tool.name)}, "{arguments}": ')
        rules.append(f'call_{number}: {head} {json_value(tool.parameters)} "}}"')
    return "\n".join(rules)
