"""The demo model's tokenizer, and an engine client that a test plays the engine for."""

import sys
from pathlib import Path

import pytest

from octavo.engine.messages import EngineInfo, EngineOutput, EngineRequest
from octavo.text.generator import Generator
from octavo.text.observer import Observer
from octavo.text.tokenizer import Tokenizer, load_tokenizer

sys.path.insert(0, str(Path(__file__).parent))  # for ``asked``


@pytest.fixture(scope="session")
def tokenizer(demo_gguf: Path) -> Tokenizer:
    return load_tokenizer(demo_gguf)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def info() -> EngineInfo:
    return EngineInfo(
        max_model_len=64,
        vocab_size=49152,
        page_size=16,
        num_pages=64,
        dtype="float32",
        eos_token_ids=[2],
        weights_bytes=1,
        max_logprobs=5,
    )


class PlayedClient:
    """Has ``EngineClient``'s methods; the test reads ``requests`` and answers with ``say``."""

    def __init__(self) -> None:
        self.requests: list[EngineRequest] = []
        self.aborted: list[int] = []
        self._sinks = {}

    def next_id(self) -> int:
        return len(self.requests) + 1

    def submit(self, request, sink) -> None:
        self.requests.append(request)
        self._sinks[request.id] = sink

    def abort(self, request_id: int) -> None:
        if self._sinks.pop(request_id, None):
            self.aborted.append(request_id)

    def say(self, request_id: int, token_ids: list[int], **fields) -> None:
        sink = self._sinks.get(request_id)
        if "finish" in fields:
            self._sinks.pop(request_id, None)
        if sink and len(token_ids) == 1 and not fields:
            sink.hear_token(*token_ids)
        elif sink:
            sink.hear(EngineOutput(request_id, token_ids, **fields))


@pytest.fixture
def client() -> PlayedClient:
    return PlayedClient()


class Noted(Observer):
    def __init__(self):
        self.first, self.gaps, self.done = [], [], []

    def first_tokens(self, generation, seconds, count):
        self.first.append((seconds, count))

    def next_tokens(self, seconds, count):
        self.gaps.append((seconds, count))

    def finished(self, generation):
        self.done.append(generation)


@pytest.fixture
def observer():
    return Noted()


@pytest.fixture
def generator(client, tokenizer, info, observer):
    return Generator(client, tokenizer, info, observer)
