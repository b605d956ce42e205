"""Which parsers a model has: by what its chat template says, unless its settings say otherwise."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from octavo.config import ReasoningParser, ToolCallParser
from octavo.text import tokenizer as ours
from octavo.text.answer_format import AnswerFormat
from octavo.text.chat_template import ChatTemplate
from octavo.text.detokenizer import Detokenizer
from octavo.text.pieces import CallArguments, CallBegun, Content, Thought
from octavo.text.tools.hermes import Hermes
from octavo.text.tools.llama import LlamaJson
from octavo.text.tools.mistral import Mistral
from octavo.text.tools.pythonic import Pythonic

SPECIAL = ["<|end|>", "[TOOL_CALLS]", "[THINK]", "[/THINK]"]
# What tells families apart, as their templates have it.
QWEN = """For each function call, return a json object within <tool_call></tool_call> XML tags:\\n<tool_call>
{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n</tool_call>"""
QWEN3 = QWEN + "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
CODER = "<tool_call>\\n<function=example_function_name>\\n<parameter=example_parameter_1>\\nvalue_1\\n</parameter>"
LLAMA = """Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}."""
LLAMA4 = "you MUST put it in the format of [func_name1(params_name1=params_value1, params_name2=params_value2...)]"
SMALL = '{{- "[TOOL_CALLS] [" }}{%- for tool_call in tool_calls %}'
DEVSTRAL = "{{- '[TOOL_CALLS]' + tool.function.name + '[ARGS]' + arguments }}"
MAGISTRAL = DEVSTRAL + "{{- '[THINK]' + block['thinking'] + '[/THINK]' }}"
R1 = "{% set content = content.split('</think>')[-1] %}{{'<｜Assistant｜>'}}"
DISTILLED = R1 + "{{'<｜Assistant｜><think>\\n'}}"


def tokenizer(template: str | None = None) -> ours.Tokenizer:
    alphabet = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(BPE(vocab=alphabet, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    return ours.Tokenizer(backend, chat_template=None if template is None else ChatTemplate(template, {}))


@pytest.mark.parametrize(
    ("template", "tools", "marks"),
    [
        (None, None, None),
        ("{{ messages[0].content }}", None, None),
        (QWEN, Hermes, None),
        (QWEN3, Hermes, ("<think>", "</think>", False)),
        (CODER, None, None),
        (LLAMA, LlamaJson, None),
        (LLAMA4, Pythonic, None),
        (SMALL, Mistral, None),
        (MAGISTRAL, Mistral, ("[THINK]", "[/THINK]", False)),
        (R1, None, ("<think>", "</think>", True)),
        (DISTILLED, None, ("<think>", "</think>", False)),
        ("{{ '<seed:think>' }}", None, ("<seed:think>", "</seed:think>", False)),
    ],
)
def test_the_template_tells(template: str | None, tools: type | None, marks: tuple | None) -> None:
    answers = AnswerFormat(tokenizer(template), None, None)
    assert type(answers.tools) is (tools or type(None))
    assert (answers.reasoning and tuple(answers.reasoning)) == marks


def test_the_settings_count_before_the_template() -> None:
    answers = AnswerFormat(tokenizer(QWEN3), ToolCallParser.LLAMA3_JSON, ReasoningParser.SEED_OSS)
    assert type(answers.tools) is LlamaJson
    assert answers.reasoning.start == "<seed:think>"
    nothing = AnswerFormat(tokenizer(QWEN3), ToolCallParser.NONE, ReasoningParser.NONE)
    assert (nothing.tools, nothing.reasoning) == (None, None)
    assert nothing.parser(None, True, []) is None


def test_mistrals_way_of_writing_is_the_templates() -> None:
    def begin(template: str) -> str:
        answers = AnswerFormat(tokenizer(template), None, None)
        return answers.tools.grammar([], True, answers.marker).splitlines()[0]

    assert begin(SMALL) == 'calls: <[257]> "[" call (", " call)* "]"'
    assert begin(DEVSTRAL) == "calls: call+"


def test_special_tokens_are_in_the_text_if_they_are_marks() -> None:
    model = tokenizer(MAGISTRAL)
    answers = AnswerFormat(model, None, None)
    says = '[THINK]Hm.[/THINK]Yes.[TOOL_CALLS]f{"a": 1}<|end|>'
    ids = model.encode(says)
    assert len(ids) == len(says) - sum(len(text) - 1 for text in SPECIAL)
    plain, marked = Detokenizer(model), Detokenizer(model, True, answers.markers(answers.tools))
    assert "".join(map(plain.push, ids)) == 'Hm.Yes.f{"a": 1}'
    parser = answers.parser(answers.tools, True, [])
    text = "".join(map(marked.push, ids))
    assert text == says.removesuffix("<|end|>")
    assert parser.push(text, ids, True) == [Thought("Hm."), Content("Yes."), CallBegun("f"), CallArguments('{"a": 1}')]
    assert parser.reasoning_tokens == len("Hm.") + 2


def test_where_reasoning_begins_is_seen_from_the_prompt() -> None:
    model = tokenizer(QWEN3)
    answers = AnswerFormat(model, None, None)

    def first(prompt: str) -> object:
        return answers.parser(None, True, model.encode(prompt)).push("Hm.", [], True)[0]

    assert first("Hi<think>\n") == Thought("Hm.")
    assert first("Hi<think>\n\n</think>\n\n") == Content("Hm.")
    assert first("What does <think> mean?") == Content("Hm.")
