"""Tools that a request brings, and which of them its answer may, must or must not call. Knows no route and no model."""

import re
from collections.abc import Iterable
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from octavo.errors import InvalidRequest, shown
from octavo.protocol.openai.errors import FieldError
from octavo.structured_outputs import MAX_GRAMMAR_DEPTH, StructuredOutputsParams
from octavo.text.answer_format import AnswerFormat
from octavo.text.tools.format import Tool, ToolFormat, json_value
from octavo.text.tools.llama import LlamaJson

MAX_TOOLS = 1024
MAX_TOOLS_BYTES = 1 << 18  # whoever reads them holds up everybody
_NAME = re.compile(r"[a-zA-Z0-9_.:-]{1,128}")
_HOW = "'none', 'auto', 'required', the name of a function or allowed_tools"


class _Function(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a model is told of a function."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _ChatTool(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A tool as chat completions have it, and as chat templates do."""

    type: str
    function: _Function


class _ResponsesTool(_Function, kw_only=True, forbid_unknown_fields=True):
    """A tool as responses have it."""

    type: str


class Mode(Enum):
    """Whether tools are to be called."""

    NONE = 0
    AUTO = 1
    REQUIRED = 2


class ToolUse(NamedTuple):
    """``name``: of the one tool that must be called. ``parallel``: several calls are welcome."""

    functions: list[_Function]
    mode: Mode
    name: str | None
    parallel: bool

    def told(self) -> list[dict[str, Any]] | None:
        """What the chat template is told: nothing of tools that must not be called, nor what is no business of the model's."""
        if self.mode is Mode.NONE or not self.functions:
            return None
        told = [msgspec.structs.replace(function, strict=None) for function in self.functions]
        return [{"type": "function", "function": msgspec.to_builtins(function)} for function in told]

    def format(self, answers: AnswerFormat) -> ToolFormat | None:
        """How the calls in an answer are written, None if there are to be none. Raises ``FieldError`` if nobody knows."""
        if self.mode is Mode.NONE or not self.functions:
            return None
        if answers.tools is None and self.mode is Mode.AUTO:
            text = (
                "The model writes calls of tools in no way that this server knows: have its model.json name one as "
                "tool_call_parser, or send 'required', 'none' or the name of a function as tool_choice."
            )
            raise FieldError(text, "tools", "unsupported_value")
        return answers.tools or LlamaJson()

    def structure(self, answers: AnswerFormat, form: StructuredOutputsParams | None) -> StructuredOutputsParams | None:
        """What an answer must look like that may have the ``form`` instead of calls. Raises ``FieldError``."""
        tools = self.format(answers)
        if tools is None or (self.mode is Mode.AUTO and form is None):
            return form
        callable_ = [_tool(function) for function in self.functions if self.name in (None, function.name)]
        try:
            calls = tools.grammar(callable_, self.parallel and self.name is None, answers.marker)
            if self.mode is Mode.REQUIRED or form is None:
                return StructuredOutputsParams(grammar=f"%llguidance {{}}\nstart: calls\n{calls}")
            answer = json_value(_schema(form))
            return StructuredOutputsParams(grammar=f"%llguidance {{}}\nstart: answer | calls\nanswer: {answer}\n{calls}")
        except FieldError:
            raise
        except InvalidRequest as error:
            text = str(error).replace("structured_outputs.grammar", "The grammar that the calls of these tools follow")
            raise FieldError(text, "tools", "invalid_value") from None


def read_tools(tools: list[dict[str, Any]] | None, choice: str | dict[str, Any] | None, parallel: bool | None) -> ToolUse:
    """What a request says of tools, as either of the routes has it. Raises ``FieldError``."""
    if len(tools or ()) > MAX_TOOLS:
        raise FieldError(f"tools must hold at most {MAX_TOOLS} tools.", "tools", "array_above_max_length")
    _check_size(tools or [])
    functions = [_function(tool, f"tools[{number}]") for number, tool in enumerate(tools or ())]
    names = [function.name for function in functions]
    if len(set(names)) < len(names):
        raise FieldError("tools must have names that differ.", "tools", "invalid_value")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        functions, choice = _allowed(functions, choice.get("allowed_tools", choice))
    mode, name = _chosen(choice)
    if mode is Mode.REQUIRED and (not functions or name not in (None, *names)):
        text = "tool_choice must be 'auto' or 'none' without tools." if not functions else "tool_choice must name one of the tools."
        raise FieldError(text, "tool_choice", "invalid_value")
    return ToolUse(functions, mode, name, parallel is not False)


def _function(tool: dict[str, Any], place: str) -> _Function:
    if (kind := tool.get("type")) != "function":
        text = f"{place}.type must be 'function', got '{shown(str(kind))}': tools are called by whoever asks, and none is built in."
        raise FieldError(text, "tools", "unsupported_value")
    try:
        if "function" in tool:
            function = msgspec.convert(tool, _ChatTool).function
        else:
            flat = msgspec.convert(tool, _ResponsesTool)
            function = _Function(name=flat.name, description=flat.description, parameters=flat.parameters, strict=flat.strict)
    except msgspec.ValidationError as error:
        raise FieldError(f"{place} is no tool: {error}.", "tools", "invalid_value") from None
    if not _NAME.fullmatch(function.name):
        text = f"{place} must have a name of at most 128 letters, digits, '_', '-', '.' and ':'."
        raise FieldError(text, "tools", "invalid_value")
    if function.parameters is not None and function.parameters.get("type", "object") != "object":
        raise FieldError(f"{place} must have parameters whose type is 'object'.", "tools", "invalid_value")
    return function


def _allowed(functions: list[_Function], choice: Any) -> tuple[list[_Function], str]:
    """Those of ``functions`` that a choice leaves, and how they are to be called."""
    mode, tools = (choice.get("mode"), choice.get("tools")) if isinstance(choice, dict) else (None, None)
    if mode not in ("auto", "required") or not isinstance(tools, list) or not 0 < len(tools) <= MAX_TOOLS:
        text = f"tool_choice must have a mode, 'auto' or 'required', and 1 to {MAX_TOOLS} tools if its type is allowed_tools."
        raise FieldError(text, "tool_choice", "invalid_value")
    if not functions:
        raise FieldError("tool_choice must be 'auto' or 'none' without tools.", "tool_choice", "invalid_value")
    allowed = {_named(tool) for tool in tools}
    if not allowed <= {function.name for function in functions}:
        raise FieldError("tool_choice must name one of the tools.", "tool_choice", "invalid_value")
    return [function for function in functions if function.name in allowed], mode


def _named(choice: Any) -> str | None:
    """What a choice calls a function, in the words of either route; None if it is no choice of one."""
    named = choice.get("function", choice) if isinstance(choice, dict) and choice.get("type") == "function" else None
    name = named.get("name") if isinstance(named, dict) else None
    return name if isinstance(name, str) else None


def _chosen(choice: str | dict[str, Any] | None) -> tuple[Mode, str | None]:
    if choice is None:
        return Mode.AUTO, None
    if isinstance(choice, str):
        mode = {"none": Mode.NONE, "auto": Mode.AUTO, "required": Mode.REQUIRED}.get(choice)
        if mode is None:
            raise FieldError(f"tool_choice must be {_HOW}, got '{shown(choice)}'.", "tool_choice", "invalid_value")
        return mode, None
    name = _named(choice)
    if name is None:
        raise FieldError(f"tool_choice must be {_HOW}; other kinds are not supported.", "tool_choice", "unsupported_value")
    return Mode.REQUIRED, name


def _tool(function: _Function) -> Tool:
    return Tool(function.name, {"type": "object"} | (function.parameters or {"additionalProperties": False}))


def _schema(form: StructuredOutputsParams) -> dict[str, Any]:
    kind, text = form.spelled()
    try:
        return msgspec.json.decode(text if kind == "json" else "", type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        text = "tools must be left out, or tool_choice be 'none' or 'required', beside an answer whose form is no JSON schema."
        raise FieldError(text, "tools", "unsupported_value") from None


def _check_size(tools: list[dict[str, Any]]) -> None:
    if len(msgspec.json.encode(tools)) > MAX_TOOLS_BYTES:
        raise FieldError(f"tools must have at most {MAX_TOOLS_BYTES} bytes.", "tools", "invalid_value")
    level: list[Any] = list(tools)
    for _ in range(MAX_GRAMMAR_DEPTH):
        level = [part for value in level for part in _parts(value)]
        if not level:
            return
    raise FieldError(f"tools must be nested at most {MAX_GRAMMAR_DEPTH} levels deep.", "tools", "invalid_value")


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
