"""What parsers make of recorded answers and of any text: the same wherever it is cut, nothing lost, in linear time."""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from recorded import HERMES, LLAMA, MISTRAL, PYTHONIC

from octavo.text.pieces import CallArguments, CallBegun, Content, Piece, Pieces, Thought
from octavo.text.reasoning import Place, Reasoning, ReasoningSplit
from octavo.text.tools.format import ToolFormat
from octavo.text.tools.hermes import Hermes
from octavo.text.tools.llama import LlamaJson
from octavo.text.tools.mistral import Mistral
from octavo.text.tools.pythonic import Pythonic

FORMATS: dict[str, tuple[ToolFormat, list[tuple[str, list[Piece]]]]] = {
    "hermes": (Hermes(), HERMES),
    "llama3_json": (LlamaJson(), LLAMA),
    "mistral": (Mistral(named=False), MISTRAL),
    "pythonic": (Pythonic(), PYTHONIC),
}
RECORDED = [(name, text, expected) for name, (_, cases) in FORMATS.items() for text, expected in cases]
# What texts are made of that come near to calls.
CRUMBS = [
    "<tool_call>", "</tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<tool", "{", "}", "[", "]", "(", ")",
    ",", ":", ";", '"', "'", "\\", " ", "\n", '"name"', '"arguments": ', '"parameters": ', '"f"',
    '{"name": "f", "arguments": {"a": 1}}', '{"name": "g", "parameters": ', "f(", "a=", "1", "name", "<think>", "</think>", "é",
]  # fmt: skip
texts = st.lists(st.sampled_from(CRUMBS), max_size=24).map("".join)


def joined(pieces: list[Piece]) -> list[Piece]:
    """Pieces of a kind that follow one another as one."""
    one: list[Piece] = []
    for piece in pieces:
        if one and type(one[-1]) is type(piece) and not isinstance(piece, CallBegun):
            one[-1] = type(piece)(one[-1].text + piece.text)
        else:
            one.append(piece)
    return one


def parsed(tools: ToolFormat, text: str, cuts: set[int] = frozenset()) -> list[Piece]:
    """All pieces of ``text``, taken wherever it is cut."""
    pieces, told = Pieces(), []
    parser = tools.parser(pieces)
    for index, character in enumerate(text):
        parser.step(character)
        if index in cuts:
            told += pieces.take()
    parser.finish()
    return joined(told + pieces.take())


@pytest.mark.parametrize(("name", "text", "expected"), RECORDED)
def test_recorded_answers(name: str, text: str, expected: list[Piece]) -> None:
    tools = FORMATS[name][0]
    assert parsed(tools, text) == expected
    assert parsed(tools, text, set(range(len(text)))) == expected


@pytest.mark.parametrize("name", FORMATS)
def test_any_text_is_read_alike_wherever_it_is_cut_and_none_is_lost(name: str) -> None:
    tools = FORMATS[name][0]
    recorded = st.sampled_from([text for text, _ in FORMATS[name][1]])

    @seed(5)
    @settings(max_examples=60, deadline=None, database=None)
    @given(st.one_of(texts, st.tuples(recorded, texts, recorded).map("".join)), st.sets(st.integers(0, 400), max_size=20))
    def check(text: str, cuts: set[int]) -> None:
        whole = parsed(tools, text)
        assert parsed(tools, text, cuts) == whole
        if not any(isinstance(piece, CallBegun) for piece in whole):
            assert whole == ([Content(text)] if text else [])

    check()


def test_a_call_is_told_while_it_comes() -> None:
    for tools, text in ((Hermes(), HERMES[0][0]), (LlamaJson(), LLAMA[0][0]), (Mistral(named=False), MISTRAL[0][0])):
        pieces = Pieces()
        parser = tools.parser(pieces)
        for character in text[: text.index("{", text.index("name"))]:
            parser.step(character)
        assert pieces.take() == []
        parser.step("{")
        begun, first = pieces.take()
        assert isinstance(begun, CallBegun)
        assert first == CallArguments("{")
        parser.step('"')
        assert pieces.take() == [CallArguments('"')]


@pytest.mark.parametrize("name", FORMATS)
def test_only_what_may_begin_a_call_is_held_back(name: str) -> None:
    pieces = Pieces()
    parser = FORMATS[name][0].parser(pieces)
    for character in "It’s5<6[7]":
        parser.step(character)
        may_begin = {"hermes": "<", "llama3_json": "<", "mistral": "["}.get(name, "")
        assert (pieces.take() == []) == (character == may_begin)


def steps_of(tools: ToolFormat, text: str) -> int:
    """How many lines of Python a text takes."""
    count = 0

    def trace(frame: object, event: str, argument: object) -> object:
        nonlocal count
        count += 1
        return trace

    sys.settrace(trace)
    try:
        parsed(tools, text)
    finally:
        sys.settrace(None)
    return count


HOSTILE = [
    "<tool_call>" * 15, "<tool_call>{" * 15, '<tool_call>{"name": "' * 12, "<" * 160, " " * 160, "[TOOL_CALLS]" * 15,
    "[TOOL_CALLS][" * 15, '{"name": "a", "parameters": {}};' * 8, "{" * 160, "<|python_tag|>" * 15, "[f(" * 50, "[f(a=" + "[" * 160,
    "[f(a=1)," * 15,
    "[f(a=1, b=2), g(oops)" * 8, "x " * 15, '<tool_call>{"name": "f", "arguments": {' + "[" * 160,
]  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_twice_the_text_is_twice_the_work(name: str) -> None:
    for text in HOSTILE:
        once, twice, thrice = (steps_of(FORMATS[name][0], text * times) for times in (1, 2, 3))
        assert thrice - twice <= 1.2 * (twice - once) + 200, text[:30]


def test_a_call_is_of_bounded_length_beside_its_strings() -> None:
    def holds(count: int, value: str) -> list[Piece]:
        return parsed(Pythonic(), "[f(a=[" + ", ".join([value] * count) + "])]")

    begun, arguments = holds(2000, "1")
    assert (begun, json.loads(arguments.text)) == (CallBegun("f"), {"a": [1] * 2000})
    assert holds(30_000, "1") == [Content("[f(a=[" + ", ".join("1" * 30_000) + "])]")]
    begun, arguments = holds(3, "'" + "x" * 100_000 + "'")
    assert (begun, json.loads(arguments.text)) == (CallBegun("f"), {"a": ["x" * 100_000] * 3})


THINK = Reasoning("<think>", "</think>")
ALWAYS = Reasoning("<think>", "</think>", always=True)
SPLITS: list[tuple[Reasoning, Place, str, list[Piece]]] = [
    (THINK, Place.BEFORE, "<think>\nHm.\n</think>\n\nYes.", [Thought("Hm."), Content("Yes.")]),
    (THINK, Place.BEFORE, "<think>\n\n</think>\n\nYes.\n", [Content("Yes.\n")]),
    (THINK, Place.BEFORE, " Yes. <think>no</think>", [Content(" Yes. <think>no</think>")]),
    (THINK, Place.BEFORE, "<thin ice", [Content("<thin ice")]),
    (THINK, Place.BEFORE, "<think>Hm", [Thought("Hm")]),
    (THINK, Place.BEFORE, "<thi", [Content("<thi")]),
    (THINK, Place.INSIDE, "\nHm. <b></thin</think>Yes.", [Thought("Hm. <b></thin"), Content("Yes.")]),
    (THINK, Place.INSIDE, "<think>\nHm.</think>Yes.", [Thought("Hm."), Content("Yes.")]),
    (THINK, Place.INSIDE, "Hm. ", [Thought("Hm. ")]),
    (THINK, Place.OVER, "<think>Yes.</think>", [Content("<think>Yes.</think>")]),
    (ALWAYS, Place.INSIDE, "Hm.\n</think>\n\nYes.", [Thought("Hm."), Content("Yes.")]),
]


def split(reasoning: Reasoning, place: Place, text: str, cuts: set[int]) -> list[Piece]:
    pieces, told = Pieces(), []
    splitting = ReasoningSplit(reasoning, place, lambda text: pieces.add(Thought, text), lambda text: pieces.add(Content, text))
    for index, character in enumerate(text):
        splitting.step(character)
        if index in cuts:
            told += pieces.take()
    splitting.finish()
    return joined(told + pieces.take())


@pytest.mark.parametrize(("reasoning", "place", "text", "expected"), SPLITS)
def test_reasoning_is_split_off(reasoning: Reasoning, place: Place, text: str, expected: list[Piece]) -> None:
    assert split(reasoning, place, text, set()) == expected
    assert split(reasoning, place, text, set(range(len(text)))) == expected


@seed(5)
@settings(max_examples=60, deadline=None, database=None)
@given(st.sampled_from([(THINK, Place.BEFORE), (THINK, Place.INSIDE)]), texts, st.sets(st.integers(0, 200), max_size=20))
def test_reasoning_is_split_off_alike_wherever_a_text_is_cut(case: tuple[Reasoning, Place], text: str, cuts: set[int]) -> None:
    assert split(*case, text, cuts) == split(*case, text, set())
