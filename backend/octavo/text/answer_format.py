"""``AnswerFormat``: what of one model's answers is reasoning, calls of tools, and content. Knows no wire.

Which formats a model has is told by its ``model.json``, or else by its own chat template.
"""

from typing import TypeVar

from octavo.config import ReasoningParser, ToolCallParser
from octavo.text.pieces import CallArguments, CallBegun, Content, Piece, Pieces, Thought
from octavo.text.reasoning import Place, Reasoning, ReasoningSplit, ReasoningTokens
from octavo.text.tokenizer import Tokenizer
from octavo.text.tools.format import ToolFormat, lark_marker
from octavo.text.tools.hermes import Hermes
from octavo.text.tools.llama import LlamaJson
from octavo.text.tools.mistral import Mistral
from octavo.text.tools.pythonic import Pythonic

_Parser = TypeVar("_Parser", ToolCallParser, ReasoningParser)
_REASONING = {
    ReasoningParser.DEEPSEEK_R1: Reasoning("<think>", "</think>", always=True),
    ReasoningParser.QWEN3: Reasoning("<think>", "</think>"),
    ReasoningParser.MISTRAL: Reasoning("[THINK]", "[/THINK]"),
    ReasoningParser.SEED_OSS: Reasoning("<seed:think>", "</seed:think>"),
}
# By what a chat template must have in it, and must not. The first row that fits counts.
_TOOLS_BY_TEMPLATE: tuple[tuple[str, tuple[str, ...], ToolCallParser], ...] = (
    ("[TOOL_CALLS]", (), ToolCallParser.MISTRAL),
    # Others write between these marks, too, but no JSON.
    ("<tool_call>", ("<function=", "<arg_key>", "<parameter", "func_name1("), ToolCallParser.HERMES),
    ("func_name1(", ("<tool_call>",), ToolCallParser.PYTHONIC),
    ('"parameters": dictionary', (), ToolCallParser.LLAMA3_JSON),
)
_REASONING_BY_TEMPLATE: tuple[tuple[str, tuple[str, ...], ReasoningParser], ...] = (
    ("<seed:think>", (), ReasoningParser.SEED_OSS),
    ("[THINK]", (), ReasoningParser.MISTRAL),
    # DeepSeek's own, which does not say how reasoning begins.
    ("</think>", ("<think>",), ReasoningParser.DEEPSEEK_R1),
    ("<think>", (), ReasoningParser.QWEN3),
)


class AnswerParser:
    """Takes one answer apart, in time linear in its length, wherever it is cut into pieces."""

    def __init__(
        self, tokenizer: Tokenizer, tools: ToolFormat | None, parallel: bool, reasoning: Reasoning | None, place: Place
    ) -> None:
        """``tools`` and ``reasoning``: what is looked for; ``place``: where the reasoning is when the answer begins.

        Unless ``parallel``, calls after the first are left out.
        """
        self._pieces = Pieces()
        self._parallel = parallel
        self._calls = 0
        self._tools = tools.parser(self._pieces) if tools is not None else None
        answer = self._tools.step if self._tools is not None else self._say
        self._split = ReasoningSplit(reasoning, place, self._think, answer) if reasoning is not None else None
        self._count = ReasoningTokens(reasoning, tokenizer) if reasoning is not None and place is not Place.OVER else None

    @property
    def reasoning_tokens(self) -> int:
        """How many tokens so far were spent on reasoning."""
        return self._count.count if self._count is not None and self._split is not None and self._split.reasons else 0

    def push(self, text: str, token_ids: list[int], final: bool) -> list[Piece]:
        """What more text, and the tokens that it comes from, add; nothing follows after a ``final`` one."""
        if self._count is not None:
            self._count.add(token_ids)
        self._read(text)
        if final:
            if self._split is not None:
                self._split.finish()
            if self._tools is not None:
                self._tools.finish()
        pieces = self._pieces.take()
        return pieces if self._parallel else [piece for piece in pieces if self._is_told(piece)]

    def _is_told(self, piece: Piece) -> bool:
        self._calls += isinstance(piece, CallBegun)
        return self._calls <= 1 or not isinstance(piece, CallBegun | CallArguments)

    def _read(self, text: str) -> None:
        step = self._split.step if self._split is not None else self._say if self._tools is None else self._tools.step
        for index, character in enumerate(text):
            if self._tools is None and (self._split is None or self._split.over):
                self._say(text[index:])
                return
            step(character)

    def _think(self, text: str) -> None:
        self._pieces.add(Thought, text)

    def _say(self, text: str) -> None:
        self._pieces.add(Content, text)


class AnswerFormat:
    """One model's. ``tools`` and ``reasoning`` are None where it has no known format.

    ``takes_effort``: its chat template asks how much to reason, or whether.
    """

    def __init__(
        self, tokenizer: Tokenizer, tool_call_parser: ToolCallParser | None, reasoning_parser: ReasoningParser | None
    ) -> None:
        """None has the chat template decide."""
        self.tokenizer = tokenizer
        source = tokenizer.chat_template.source if tokenizer.chat_template is not None else ""
        calls = _found(_TOOLS_BY_TEMPLATE, source) if tool_call_parser is None else tool_call_parser
        thoughts = _found(_REASONING_BY_TEMPLATE, source) if reasoning_parser is None else reasoning_parser
        self.tools = _tool_format(calls, tokenizer, source) if calls is not None else None
        self.reasoning = _REASONING.get(thoughts) if thoughts is not None else None
        self.takes_effort = any(name in source for name in ("reasoning_effort", "enable_thinking"))

    def markers(self, tools: ToolFormat | None) -> tuple[str, ...]:
        """What has to be in the text of an answer even if it is special tokens; ``tools``: how calls in it are written."""
        return (*(tools.markers if tools else ()), *((self.reasoning.start, self.reasoning.end) if self.reasoning else ()))

    def parser(self, tools: ToolFormat | None, parallel: bool, prompt_token_ids: list[int]) -> AnswerParser | None:
        """A parser of one answer to a prompt, None if it is content and nothing else.

        ``tools``: how calls are written, None if there are to be none; unless ``parallel``, only the first is told.
        """
        if tools is None and self.reasoning is None:
            return None
        place = Place.OVER if self.reasoning is None else self.reasoning.place(self.tokenizer, prompt_token_ids)
        return AnswerParser(self.tokenizer, tools, parallel, self.reasoning, place)

    def marker(self, text: str) -> str:
        """A marker as a Lark grammar has it: by its id if it is a special token."""
        return lark_marker(self.tokenizer, text)


def _found(table: tuple[tuple[str, tuple[str, ...], _Parser], ...], source: str) -> _Parser | None:
    rows = (parser for has, lacks, parser in table if has in source and not any(text in source for text in lacks))
    return next(rows, None)


def _tool_format(parser: ToolCallParser, tokenizer: Tokenizer, source: str) -> ToolFormat | None:
    if parser is ToolCallParser.MISTRAL:
        listed = "[TOOL_CALLS] [" in source or "[TOOL_CALLS][" in source
        return Mistral(named="[ARGS]" in source or (not listed and tokenizer.special_id("[ARGS]") is not None))
    return {ToolCallParser.HERMES: Hermes(), ToolCallParser.LLAMA3_JSON: LlamaJson(), ToolCallParser.PYTHONIC: Pythonic()}.get(
        parser
    )
