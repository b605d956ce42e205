"""``Lane``: one request after the other whose answers stream, and those over OpenAI's API. Knows the wire only."""

import asyncio
import json
import time
from abc import ABC, abstractmethod
from enum import StrEnum
from typing import NamedTuple

import httptools
import msgspec

from octavo.wire import pb

COMPLETIONS = "/v1/completions"
WORDS = (
    *("time", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state"),
    *("family", "student", "group", "country", "problem", "hand", "part", "place"),
)


class Door(StrEnum):
    """What a server is asked through."""

    GRPC = "grpc"
    OPENAI = "openai"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """``lanes`` streams, each with one request of ``tokens`` tokens after the other, for ``seconds`` after ``warm_up`` seconds.

    ``rate``: tokens a second that each request gets from the source, 0 for as many as can be. ``connections``: how many the
    streams share evenly (over HTTP each has its own). ``idle``: each stream has one request of one token, is then open and
    silent, and nothing counts.
    """

    address: str
    model: str
    lanes: int
    door: Door = Door.GRPC
    tokens: int = 128
    rate: int = 0
    warm_up: float = 1.0
    seconds: float
    connections: int
    idle: bool = False


class Message(NamedTuple):
    """When one came, and its bytes."""

    at: float
    data: bytes


class Lane(ABC):
    """One request after the other."""

    def __init__(self, number: int) -> None:
        """The prompt and the id are its own."""
        self.prompt = " " + " ".join(WORDS[number % len(WORDS) :] + WORDS[: number % len(WORDS)])
        self.id = f"lane-{number}"

    async def run(self, until: float) -> None:
        """None is begun after ``until`` (``time.monotonic``)."""
        while time.monotonic() < until:
            await self.ask()

    @abstractmethod
    async def ask(self) -> None:
        """One request, to its last message."""

    @abstractmethod
    def close(self) -> None:
        """End it."""

    @abstractmethod
    def answers(self) -> list[list[Message]]:
        """The messages of each request that ended."""

    @abstractmethod
    def text_of(self, message: Message) -> bytes:
        """The text that a message brings. Raises ``RuntimeError`` if the message is not what it must be."""

    def arrivals(self, messages: list[Message]) -> list[float]:
        """When each token of one request came. Raises ``RuntimeError`` if anything of the answer is not what it must be."""
        arrivals: list[float] = []
        text = b""
        for message in messages:
            more = self.text_of(message)
            text += more
            arrivals += [message.at] * more.count(b" ")
        expected = self.prompt.encode() * (len(text) // len(self.prompt) + 1)
        if not expected.startswith(text):
            raise RuntimeError(f"The answer to {self.id} is another's: {text[:200]!r}")
        return arrivals


class OpenAiLane(Lane, asyncio.Protocol):
    """One connection on which a completion after the other is streamed. A message is an event with text."""

    def __init__(self, number: int, job: Job) -> None:
        """It is open from its first request on."""
        super().__init__(number)
        self._host, self._port = job.address.rsplit(":", 1)
        self._data = completion_request(job, self.prompt, self.id)
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._parts: list[Message] = []
        self._replies: list[list[Message]] = []
        self._ended: asyncio.Future[None]

    async def ask(self) -> None:
        """One request, to its last event."""
        loop = asyncio.get_running_loop()
        if self._transport is None:
            self._transport, _ = await loop.create_connection(lambda: self, self._host, int(self._port))
        self._parts, self._ended = [], loop.create_future()
        self._transport.write(self._data)
        await self._ended
        self._replies.append(self._parts)

    def close(self) -> None:
        """End it."""
        if self._transport is not None:
            self._transport.abort()

    def answers(self) -> list[list[Message]]:
        """The events with text of each request that ended."""
        return [
            [Message(at, data) for at, part in parts for data in part.split(b"\n\n") if b'"text":' in data]
            for parts in self._replies
        ]

    def text_of(self, message: Message) -> bytes:
        """The text of an event's only choice."""
        event = json.loads(message.data.removeprefix(b"data: "))
        if self.id not in event["id"] or len(event["choices"]) != 1:
            raise RuntimeError(f"Not an answer to {self.id}: {str(event)[:500]}")
        text: str = event["choices"][0]["text"]
        return text.encode()

    def data_received(self, data: bytes) -> None:
        """Some of a reply."""
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server ended it, or this process did."""
        if not self._ended.done():
            self._ended.set_exception(exc or RuntimeError("The server closed a connection."))

    def on_body(self, body: bytes) -> None:
        """Some of a reply's body: what the server wrote at once, for it writes whole events."""
        self._parts.append(Message(time.monotonic(), body))

    def on_message_complete(self) -> None:
        """The reply is whole."""
        status = self._parser.get_status_code()
        self._parser = httptools.HttpResponseParser(self)
        if status == 200:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(
                RuntimeError(f"The server answered {status}: {b''.join(part.data for part in self._parts)!r}")
            )


def infer_request(job: Job, prompt: str, request_id: str) -> bytes:
    """A streamed request, as vllm_backend's client writes it. To a source of tokens its ``seed`` is the rate."""
    message = pb.ModelInferRequest(model_name=job.model, id=request_id)
    sampling = msgspec.json.encode({"max_tokens": job.tokens, "ignore_eos": True, "temperature": 0, "seed": job.rate})
    for name, text in (("text_input", prompt.encode()), ("sampling_parameters", sampling)):
        message.inputs.add(name=name, datatype="BYTES", shape=[1])
        message.raw_input_contents.append(len(text).to_bytes(4, "little") + text)
    message.inputs.add(name="stream", datatype="BOOL", shape=[1])
    message.raw_input_contents.append(b"\x01")
    return message.SerializeToString()


def completion_request(job: Job, prompt: str, request_id: str) -> bytes:
    """A streamed completion, as an OpenAI client writes it."""
    wish = {"max_tokens": job.tokens, "ignore_eos": True, "temperature": 0, "seed": job.rate, "stream": True}
    body = msgspec.json.encode({"model": job.model, "prompt": prompt, **wish})
    head = f"POST {COMPLETIONS} HTTP/1.1\r\nhost: {job.address}\r\nx-request-id: {request_id}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
