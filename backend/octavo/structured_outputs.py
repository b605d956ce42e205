"""``StructuredOutputsParams``: what an answer must look like, under vLLM's names. Knows no tokenizer and no grammar library."""

import json
from typing import Any

import msgspec

from octavo.errors import InvalidRequest

MAX_GRAMMAR_BYTES = 1 << 16
MAX_GRAMMAR_DEPTH = 200
_KINDS = ("json", "regex", "choice", "grammar", "json_object")


class Thoughts(msgspec.Struct, frozen=True, array_like=True):
    """Text before an answer that follows no grammar: from ``start``, if there is any of it, or from the beginning if that is empty,
    up to ``end``."""

    start: str
    end: str


class StructuredOutputsParams(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Exactly one of the fields says what the whole answer must be.

    ``json``: a JSON schema, as a text or an object. ``regex``: a regular expression without look-around. ``choice``: texts.
    ``grammar``: an EBNF grammar as llama.cpp writes it (``root ::= …``), or Lark's. ``json_object``: any JSON object.
    """

    json: str | dict[str, Any] | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what is none, more than one, too long or too deep. Raises ``InvalidRequest``."""
        given = [kind for kind in _KINDS if getattr(self, kind) not in (None, False)]
        if len(given) != 1:
            raise InvalidRequest(f"structured_outputs must hold exactly one of {', '.join(_KINDS)}, got {len(given)} of them.")
        try:
            kind, text = self.spelled()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequest(f"structured_outputs.{given[0]} must be a value that JSON can hold.") from error
        if kind == "choice" and not (self.choice and all(isinstance(choice, str) and choice for choice in self.choice)):
            raise InvalidRequest("structured_outputs.choice must be a list of at least one text, none of them empty.")
        if not text:
            raise InvalidRequest(f"structured_outputs.{kind} must not be empty.")
        if len(text.encode(errors="replace")) > MAX_GRAMMAR_BYTES:
            raise InvalidRequest(f"structured_outputs.{kind} must have at most {MAX_GRAMMAR_BYTES} bytes.")
        if _depth(text) > MAX_GRAMMAR_DEPTH:
            raise InvalidRequest(f"structured_outputs.{kind} must be nested at most {MAX_GRAMMAR_DEPTH} levels deep.")

    def spelled(self) -> tuple[str, str]:
        """The kind and its text: equal for what asks for the same."""
        if self.json is not None:
            return "json", self.json if isinstance(self.json, str) else json.dumps(self.json)
        if self.regex is not None:
            return "regex", self.regex
        if self.choice is not None:
            return "choice", json.dumps(self.choice)
        if self.grammar is not None:
            return "grammar", self.grammar
        return "json", '{"type": "object"}'


def _depth(text: str) -> int:
    """The most brackets of any kind that are open at once."""
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}" and depth:
            depth -= 1
    return deepest
