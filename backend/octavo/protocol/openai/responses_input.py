"""The items of a response's ``input`` as messages: what was said, thought and called before. Knows no body."""

from collections.abc import Mapping
from typing import Any

from octavo.errors import shown
from octavo.protocol.openai.errors import FieldError


def read_items(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages that ``items`` are; what the model did between two messages of others is one of its own.

    Raises ``FieldError``.
    """
    messages: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for number, item in enumerate(items):
        place = f"input[{number}]"
        match kind := item.get("type", "message"):
            case "message":
                _add_message(messages, item)
            case "reasoning":
                messages.append({"role": "assistant", "content": "", "reasoning_content": _thoughts(item, place)})
            case "function_call":
                names[_text(item, "call_id", place)] = _text(item, "name", place)
                _add_call(messages, item, place)
            case "function_call_output":
                messages.append(_output(item, names, place))
            case _:
                known = "a message, reasoning, a function_call or its function_call_output"
                text = f"{place} must be {known}; items of the type '{shown(str(kind))}' are not supported."
                raise FieldError(text, "input", "unsupported_value")
    return messages


def _add_message(messages: list[dict[str, Any]], item: Mapping[str, Any]) -> None:
    """What the model said belongs to what it thought before."""
    message = {"role": item.get("role"), "content": item.get("content")}
    last = messages[-1] if messages else {}
    if message["role"] == "assistant" and set(last) == {"role", "content", "reasoning_content"} and last["content"] == "":
        messages[-1] = last | message
    else:
        messages.append(message)


def _add_call(messages: list[dict[str, Any]], item: Mapping[str, Any], place: str) -> None:
    """Calls belong to what the model said or thought just before."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    function = {"name": item["name"], "arguments": _text(item, "arguments", place)}
    messages[-1].setdefault("tool_calls", []).append({"id": item["call_id"], "type": "function", "function": function})


def _output(item: Mapping[str, Any], names: Mapping[str, str], place: str) -> dict[str, Any]:
    call_id, output = _text(item, "call_id", place), item.get("output")
    if call_id not in names:
        text = f"{place} must have the call_id of a function_call that stands before it, got '{shown(call_id)}'."
        raise FieldError(text, "input", "invalid_value")
    if not isinstance(output, str | list):
        raise FieldError(f"{place} must have an output that is a string or a list of parts.", "input", "invalid_value")
    return {"role": "tool", "tool_call_id": call_id, "name": names[call_id], "content": output}


def _thoughts(item: Mapping[str, Any], place: str) -> str:
    parts = item.get("content") or item.get("summary") or []
    if not isinstance(parts, list):
        raise FieldError(f"{place} must have a content that is a list of parts.", "input", "invalid_value")
    return "\n".join(_text(part if isinstance(part, dict) else {}, "text", place) for part in parts)


def _text(item: Mapping[str, Any], member: str, place: str) -> str:
    value = item.get(member)
    if not isinstance(value, str):
        raise FieldError(f"{place} must have a {member} that is a string.", "input", "invalid_value")
    return value
