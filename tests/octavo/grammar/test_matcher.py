"""Whatever a grammar for calls of tools lets a model say is read as calls of those tools; thoughts come before and follow none."""

import json
from typing import Any

import numpy as np
import pytest
from llguidance import LLExecutor
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from octavo.engine.grammars import Grammar
from octavo.errors import InvalidRequest
from octavo.grammar.matcher import Matcher, Vocabulary, load_vocabulary
from octavo.structured_outputs import StructuredOutputsParams, Thoughts
from octavo.text import tokenizer as ours
from octavo.text.pieces import CallArguments, CallBegun, Content, Pieces
from octavo.text.tools.format import Tool, ToolFormat, lark_marker
from octavo.text.tools.hermes import Hermes
from octavo.text.tools.llama import LlamaJson
from octavo.text.tools.mistral import Mistral
from octavo.text.tools.pythonic import Pythonic

BYTES = 256
SPECIAL = ["<|end|>", "[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]"]
WORDS = -(-(BYTES + len(SPECIAL)) // 32)  # int32 of a mask
THREAD = LLExecutor(1)
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Paris", "Rome's"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "dry": {"type": ["boolean", "null"]},
    },
    "required": ["city"],
    "additionalProperties": False,
}
EITHER: dict[str, Any] = {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}, "from": {"type": "null"}}}
EITHER |= {"$defs": {"A": {"enum": [1, "b"]}}, "additionalProperties": False}
TOOLS = [Tool("get_weather", PARAMETERS), Tool("a.b-c", EITHER), Tool("now", {"type": "object", "additionalProperties": False})]
FORMATS: list[ToolFormat] = [Hermes(), LlamaJson(), Mistral(named=False), Mistral(named=True), Pythonic()]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    alphabet = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(BPE(vocab=alphabet, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    return load_vocabulary(ours.Tokenizer(backend), BYTES + len(SPECIAL), [BYTES])


def allowed(matcher: Matcher) -> set[int]:
    bits = np.unpackbits(np.frombuffer(matcher.mask(), np.uint8), bitorder="little")
    return set(np.flatnonzero(bits).tolist())


def advance(matcher: Matcher, token: int) -> None:
    assert Matcher.advance_all([matcher], [token], [0], np.zeros((1, WORDS), np.int32), THREAD) == {}


def said(matcher: Matcher, vocabulary: Vocabulary, seed: int) -> str:
    """A sentence, drawn token by token, that ends as soon as it may."""
    drawn = np.random.default_rng(seed)
    tokens: list[int] = []
    for _ in range(600):
        may = allowed(matcher)
        if BYTES in may:
            return vocabulary.tokenizer.decode(tokens)
        # Blanks are allowed often, and say nothing.
        token = int(drawn.choice(sorted(may - set(vocabulary.tokenizer.encode(" \n\t", False)) or may)))
        tokens.append(token)
        advance(matcher, token)
    raise AssertionError(vocabulary.tokenizer.decode(tokens))


def follows(matcher: Matcher, vocabulary: Vocabulary, text: str) -> bool:
    """Whether ``text`` is a sentence."""
    for token in vocabulary.tokenizer.encode(text, False):
        if token not in allowed(matcher):
            return False
        advance(matcher, token)
    return BYTES in allowed(matcher)


def compiled(vocabulary: Vocabulary, tools: ToolFormat, parallel: bool = True, thoughts: Thoughts | None = None) -> Matcher:
    rules = tools.grammar(TOOLS, parallel, lambda text: lark_marker(vocabulary.tokenizer, text))
    wish = StructuredOutputsParams(grammar=f"%llguidance {{}}\nstart: calls\n{rules}")
    return Matcher.compiled(vocabulary, Grammar(*wish.spelled(), thoughts))


@pytest.mark.parametrize("tools", FORMATS, ids=lambda tools: type(tools).__name__)
def test_whatever_is_allowed_is_a_call(vocabulary: Vocabulary, tools: ToolFormat) -> None:
    whole, seen = compiled(vocabulary, tools), set()
    for seed in range(12):
        text = said(whole.copy(), vocabulary, seed)
        pieces = Pieces()
        parser = tools.parser(pieces)
        for character in text:
            parser.step(character)
        parser.finish()
        first, *rest = pieces.take()
        assert isinstance(first, CallBegun), text
        assert not [piece for piece in rest if isinstance(piece, Content)], text
        arguments = json.loads(rest[0].text)
        assert isinstance(rest[0], CallArguments)
        seen.add(first.name)
        if first.name == "get_weather":
            assert arguments["city"] in ("Paris", "Rome's")
            assert 1 <= arguments.get("days", 1) <= 9
        elif first.name == "a.b-c":
            assert arguments.get("a", 1) in (1, "b")
            assert arguments.get("from") is None
    assert seen == {tool.name for tool in TOOLS}


def test_blanks_in_arguments_end(vocabulary: Vocabulary) -> None:
    for tools, head in ((Hermes(), '<tool_call>\n{"name": "now", "arguments": {'), (Pythonic(), "[get_weather(city=")):
        matcher = compiled(vocabulary, tools)
        for token in vocabulary.tokenizer.encode(head, False):
            advance(matcher, token)
        blank = vocabulary.tokenizer.encode(" ", False)[0]
        for _ in range(20):
            if blank in allowed(matcher):
                advance(matcher, blank)
        assert blank not in allowed(matcher)


def test_several_calls_only_if_they_are_welcome(vocabulary: Vocabulary) -> None:
    call = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    for tools, text in (
        (Hermes(), f"{call}\n{call}"),
        (Mistral(named=False), '[TOOL_CALLS][{"name": "now", "arguments": {}}, {"name": "now", "arguments": {}}]'),
        (Mistral(named=True), "[TOOL_CALLS]now[ARGS]{}[TOOL_CALLS]now[ARGS]{}"),
        (Pythonic(), "[now(), now()]"),
    ):
        assert follows(compiled(vocabulary, tools), vocabulary, text)
        assert not follows(compiled(vocabulary, tools, parallel=False), vocabulary, text)


def test_what_pythonic_calls_cannot_keep_to_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="'anyOf' cannot be kept to"):
        Pythonic().grammar([Tool("f", {"type": "object", "anyOf": []})], True, json.dumps)


WAYS: list[tuple[StructuredOutputsParams, str]] = [
    (StructuredOutputsParams(json={"const": {"a": 1}}), '{"a": 1}'),
    (StructuredOutputsParams(regex="[a-c]{3}/"), "abc/"),
    (StructuredOutputsParams(choice=["yes", "no"]), "no"),
    (StructuredOutputsParams(grammar='root ::= "<" [a-c] ">"'), "<b>"),
    (StructuredOutputsParams(grammar='start: "<" /[a-c]/ ">"'), "<b>"),
]


@pytest.mark.parametrize(("wish", "sentence"), WAYS)
def test_thoughts_follow_no_grammar(vocabulary: Vocabulary, wish: StructuredOutputsParams, sentence: str) -> None:
    def reads(text: str, thoughts: Thoughts | None) -> bool:
        return follows(Matcher.compiled(vocabulary, Grammar(*wish.spelled(), thoughts)), vocabulary, text)

    assert reads(sentence, None)
    maybe, must = Thoughts("<think>", "</think>"), Thoughts("", "</think>")
    assert reads(sentence, maybe)
    assert reads(f"<think>\nHm. </thin {sentence}\n</think>\n\n{sentence}", maybe)
    assert not reads(f"Hm.</think>{sentence}", maybe)
    assert reads(f"Hm.</think>{sentence}", must)
    assert not reads(sentence, must)
    assert not reads("<think>Hm.</think>", maybe)
    special = Thoughts("[THINK]", "[/THINK]")
    assert reads(f"[THINK]Hm.[/THINK]{sentence}", special)
    assert reads(sentence, special)
    assert reads(f"Hm.[/THINK]{sentence}", Thoughts("", "[/THINK]"))


def test_thoughts_come_before_calls(vocabulary: Vocabulary) -> None:
    matcher = compiled(vocabulary, Hermes(), thoughts=Thoughts("", "</think>"))
    assert follows(matcher, vocabulary, 'Hm.\n</think>\n\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>')
