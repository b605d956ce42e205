"""Prompts of a request, from the tensors that may hold them: texts, chat messages or token ids. Knows no tokenizer."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from octavo.errors import InvalidRequest, Unsupported
from octavo.protocol.tensors import Element, text_of
from octavo.text.request import Conversation, Prompt

MAX_MESSAGES_BYTES = 16 << 20
_PROMPTS = ("text_input", "messages", "input_ids")
# Kinds of parts that are text, and the member that has it: OpenAI's chat completions, then its responses.
_TEXTS = {"text": "text", "refusal": "refusal", "input_text": "text", "output_text": "text"}


def read_prompts(tensors: Mapping[str, list[Element]], ids_shape: Sequence[int]) -> list[Prompt]:
    """The prompts, in the order of the tensor's elements. ``ids_shape``: of ``input_ids``, if it is there.

    ``input_ids`` of shape [k] or [1, k] is one prompt, of [n, k] n prompts; ``input_lengths`` then says how many of each row's ids
    are no padding. Raises ``InvalidRequest`` or ``Unsupported``.
    """
    given = [name for name in _PROMPTS if name in tensors]
    if len(given) != 1:
        got = " and ".join(given) or "none of them"
        raise InvalidRequest(f"A request must have its prompt in one of text_input, messages and input_ids, got {got}.")
    if "messages" in tensors:
        return [read_messages(tensors["messages"][0])]
    if "input_ids" in tensors:
        return _rows(tensors, ids_shape)
    return [text_of("text_input", text) for text in tensors["text_input"]]


def read_messages(data: Element) -> Conversation:
    """The conversation in a JSON list of messages, as the OpenAI API has them. Raises ``InvalidRequest`` or ``Unsupported``."""
    if not isinstance(data, bytes) or len(data) > MAX_MESSAGES_BYTES:
        raise InvalidRequest(f"messages must have at most {MAX_MESSAGES_BYTES} bytes.")
    try:
        messages = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InvalidRequest("messages must be a JSON list of messages, but it is not valid JSON.") from error
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise InvalidRequest('messages must be a JSON list of at least one message, like [{"role": "user", "content": "Hello"}].')
    return Conversation(checked_messages(messages))


def checked_messages(messages: list[dict[str, Any]], field: str = "messages") -> list[dict[str, Any]]:
    """The messages of ``field`` with contents that are text. Raises ``InvalidRequest`` or ``Unsupported``."""
    return [_message(message, f"{field}[{number}]") for number, message in enumerate(messages)]


def _message(message: dict[str, Any], place: str) -> dict[str, Any]:
    if not isinstance(message.get("role"), str):
        raise InvalidRequest(f"{place} must have a role that is a string, like 'user'.")
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(_part(part, place) for part in content)
    elif content is not None and not isinstance(content, str):
        raise InvalidRequest(f"{place} must have a content that is a string or a list of parts.")
    message = message | {"content": content}
    if message.get("tool_calls"):
        message["tool_calls"] = _calls(message["tool_calls"], place)
    if isinstance(thoughts := message.get("reasoning_content") or message.get("reasoning"), str):
        # Templates know it by one name or the other, and clients send what they were sent.
        message |= {"reasoning_content": thoughts, "reasoning": thoughts}
    return message


def _calls(calls: Any, place: str) -> list[dict[str, Any]]:
    """Calls of tools as chat templates have them: arguments are objects, unless they are no JSON."""
    spelled = []
    for call in calls if isinstance(calls, list) else [None]:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(call, dict) or not isinstance(function, dict) or not isinstance(function.get("name"), str):
            example = '{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}'
            raise InvalidRequest(f"{place} must have tool_calls that are a list of calls like {example}.")
        spelled.append(call | {"function": function | {"arguments": _arguments(function.get("arguments"))}})
    return spelled


def _arguments(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return {} if arguments is None else arguments
    try:
        return msgspec.json.decode(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError):
        return arguments


def _part(part: Any, place: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _TEXTS and isinstance(part.get(_TEXTS[kind]), str):
        return str(part[_TEXTS[kind]])
    if kind is None or kind in _TEXTS:
        raise InvalidRequest(f'{place} must have parts like {{"type": "text", "text": "Hello"}} in its content.')
    raise Unsupported(f"{place} has a part that is no text in its content, which is not supported yet; leave it out.")


def _rows(tensors: Mapping[str, list[Element]], shape: Sequence[int]) -> list[Prompt]:
    ids = [int(element) for element in tensors["input_ids"]]
    count, width = (shape[0], shape[1]) if len(shape) == 2 else (1, len(ids))
    lengths = [int(element) for element in tensors.get("input_lengths", [width] * min(count, len(ids) + 1))]
    if len(lengths) != count or not all(0 <= length <= width for length in lengths):
        raise InvalidRequest("input_lengths must have one length for each row of input_ids, and none longer than a row.")
    return [ids[row * width : row * width + length] for row, length in enumerate(lengths)]
