"""How often tools are read, which may be many and large."""

import json
from types import SimpleNamespace

import pytest

from octavo.config import ToolCallParser
from octavo.protocol.openai import chat, responses
from octavo.protocol.openai.chat_answer import ChatAnswer
from octavo.protocol.openai.responses_answer import ResponsesAnswer
from octavo.text.answer_format import AnswerFormat

FORMAT = AnswerFormat(SimpleNamespace(chat_template=None, special_id=lambda text: None), ToolCallParser.HERMES, None)
TOOLS = [{"type": "function", "name": "f"}]


def test_tools_are_read_once_for_a_request_and_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    for route in (chat, responses):
        once = route.read_tools
        monkeypatch.setattr(route, "read_tools", lambda *given, once=once: read.append(given[0]) or once(*given))
    asked = chat.read_chat(json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "tools": TOOLS}).encode())
    asked.request("m", 1, "id", FORMAT)
    ChatAnswer(asked, "id", 0, FORMAT)
    assert read == [TOOLS]
    created = responses.read_responses(json.dumps({"model": "m", "input": "Hi", "tools": TOOLS}).encode())
    created.request("m", 1, "id", FORMAT)
    ResponsesAnswer(created, "id", 0, FORMAT)
    assert read == [TOOLS, TOOLS]
