"""The page of the OpenAI API has every field of every request and nothing else, and every field of the official client is one."""

import inspect
import json
import re
from pathlib import Path

import msgspec
import pytest
from openai.resources.chat.completions import Completions as ChatCompletions
from openai.resources.completions import Completions
from openai.resources.responses import Responses

from octavo.protocol.openai import elsewhere
from octavo.protocol.openai.chat import ChatRequest
from octavo.protocol.openai.completions import CompletionRequest
from octavo.protocol.openai.fields import IGNORED, REFUSED
from octavo.protocol.openai.responses import ResponsesRequest
from octavo.protocol.openai.tokens import DetokenizeRequest, TokenizeRequest

PAGE = (Path(__file__).parents[3] / "docs" / "openai.md").read_text()
REQUESTS = {
    "completions": CompletionRequest,
    "chat": ChatRequest,
    "responses": ResponsesRequest,
    "tokenize": TokenizeRequest,
    "detokenize": DetokenizeRequest,
}
CALLS = {"completions": Completions.create, "chat": ChatCompletions.create, "responses": Responses.create}
OF_THE_CALL = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}


def rows(title: str) -> list[list[str]]:
    """The cells of the table under a title."""
    table = PAGE.split(f"## {title}\n")[1].split("|---|---|---|\n")[1].split("\n\n")[0]
    return [re.split(r" \| ", line.strip("| \n")) for line in table.splitlines()]


def documented(title: str, route: str) -> set[str]:
    return {name.strip("`") for name, where, *_ in rows(title) if where == "all" or route in where.split(", ")}


@pytest.mark.parametrize("route", REQUESTS)
def test_every_field_is_in_the_table_of_what_becomes_of_it(route: str) -> None:
    fields = {field.name: field.type for field in msgspec.structs.fields(REQUESTS[route])}
    refused = {name for name, kind in fields.items() if kind is msgspec.Raw}
    assert documented("Fields that are refused", route) == refused
    assert documented("Fields that are taken without effect", route) == set(fields) & IGNORED
    assert documented("Fields that are taken", route) == set(fields) - refused - IGNORED


def test_what_is_accepted_of_refused_fields_is_in_the_table() -> None:
    told = {name.strip("`"): "".join(neutral) for name, _, *neutral in rows("Fields that are refused")}
    for name, values in REFUSED.items():
        assert told[name] == ", ".join(f"`{json.dumps(value)}`" for value in values), name
    assert set(told) == set(REFUSED)


@pytest.mark.parametrize("route", CALLS)
def test_every_parameter_of_the_official_client_is_a_field(route: str) -> None:
    parameters = set(inspect.signature(CALLS[route]).parameters) - OF_THE_CALL
    assert parameters <= {field.name for field in msgspec.structs.fields(REQUESTS[route])}


@pytest.mark.parametrize("route", CALLS)
def test_what_is_said_of_fields_of_other_routes_is_true(route: str) -> None:
    """They are fields of another route and none of this, and what they are called here is one."""
    hints = {"completions": elsewhere.COMPLETIONS, "chat": elsewhere.CHAT, "responses": elsewhere.RESPONSES}
    fields = set(REQUESTS[route].__struct_fields__)
    for name, hint in hints[route].items():
        here = re.search(r"called '(\w+)", hint)
        assert name not in fields
        assert here[1] in fields if here else name in ChatRequest.__struct_fields__
