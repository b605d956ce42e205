"""A light client of ``ModelStreamInfer`` in a process of its own, the same for every server. Knows the wire only.

Run as ``python -m octavo.bench.streams`` with a ``Job`` as JSON on its standard input. It prints ``begin`` and ``end`` when what
counts begins and ends, and then what it saw. Messages are kept as bytes and read once all of them are there.
"""

import asyncio
import os
import sys
import time
from functools import partial
from typing import NamedTuple

import grpc
import msgspec
import uvloop

from octavo.wire import pb

STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
WORDS = (
    *("time", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state"),
    *("family", "student", "group", "country", "problem", "hand", "part", "place"),
)
LAST = b"triton_final_response\x12\x02\x08\x01"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """``lanes`` streams, each with one request of ``tokens`` tokens after the other, for ``seconds`` after ``warm_up`` seconds.

    ``rate``: tokens a second that each request gets from the source, 0 for as many as can be. ``connections``: how many the
    streams share evenly. ``idle``: each stream has one request of one token, is then open and silent, and nothing counts.
    """

    address: str
    model: str
    lanes: int
    tokens: int = 128
    rate: int = 0
    warm_up: float = 1.0
    seconds: float
    connections: int
    idle: bool = False


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What came within ``seconds``: messages and tokens.

    ``arrivals``: of each request that began in them and ended, when each of its tokens came (``time.monotonic``).
    """

    seconds: float
    messages: int
    tokens: int
    arrivals: list[list[float]]


class Message(NamedTuple):
    """When one came, and its bytes."""

    at: float
    data: bytes


class Lane:
    """One stream. ``requests`` has the messages of each request that ended."""

    def __init__(self, number: int, job: Job, channel: grpc.aio.Channel) -> None:
        """Open it."""
        self.prompt = " " + " ".join(WORDS[number % len(WORDS) :] + WORDS[: number % len(WORDS)])
        self.id = f"lane-{number}"
        self.requests: list[list[Message]] = []
        self._data = request(job, self.prompt, self.id)
        self._channel = channel  # which closes when nobody has it any more
        self._call = channel.stream_stream(STREAM_INFER)()

    async def run(self, until: float) -> None:
        """One request after the other; none is begun after ``until`` (``time.monotonic``)."""
        while time.monotonic() < until:
            await self.ask()

    async def ask(self) -> None:
        """One request, to its last message."""
        clock, read = time.monotonic, self._call.read
        messages: list[Message] = []
        await self._call.write(self._data)
        while True:
            data = await read()
            if data is grpc.aio.EOF:
                raise RuntimeError(f"The stream ended with {await self._call.code()}: {await self._call.details()}")
            messages.append(Message(clock(), data))
            if LAST in data:
                break
        self.requests.append(messages)

    def close(self) -> None:
        """End it."""
        self._call.cancel()


def request(job: Job, prompt: str, request_id: str) -> bytes:
    """A streamed request, as vllm_backend's client writes it. To a source of tokens its ``seed`` is the rate."""
    message = pb.ModelInferRequest(model_name=job.model, id=request_id)
    sampling = msgspec.json.encode({"max_tokens": job.tokens, "ignore_eos": True, "temperature": 0, "seed": job.rate})
    for name, text in (("text_input", prompt.encode()), ("sampling_parameters", sampling)):
        message.inputs.add(name=name, datatype="BYTES", shape=[1])
        message.raw_input_contents.append(len(text).to_bytes(4, "little") + text)
    message.inputs.add(name="stream", datatype="BOOL", shape=[1])
    message.raw_input_contents.append(b"\x01")
    return message.SerializeToString()


def open_lanes(job: Job) -> list[Lane]:
    """Open all streams."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(job.address, options=options) for _ in range(job.connections)]
    return [Lane(number, job, channels[number % job.connections]) for number in range(job.lanes)]


def tokens_of(lane: Lane, messages: list[Message]) -> list[float]:
    """When each token of one request came. Raises ``RuntimeError`` if anything of the answer is not what it must be."""
    arrivals: list[float] = []
    text = b""
    for message in messages:
        parsed = pb.ModelStreamInferResponse.FromString(message.data)
        response = parsed.infer_response
        if parsed.error_message or response.id != lane.id or len(response.raw_output_contents) != 1:
            raise RuntimeError(f"Not an answer to {lane.id}: {str(parsed)[:500]}")
        more = response.raw_output_contents[0][4:]
        text += more
        arrivals += [message.at] * more.count(b" ")
    expected = lane.prompt.encode() * (len(text) // len(lane.prompt) + 1)
    if not expected.startswith(text):
        raise RuntimeError(f"The answer to {lane.id} is another's: {text[:200]!r}")
    return arrivals


async def hold(job: Job) -> None:
    """Open the streams, use each once, say so, and keep them open until this process is ended."""
    lanes = open_lanes(job)
    await asyncio.gather(*(lane.ask() for lane in lanes))
    print("begin", flush=True)
    await asyncio.get_running_loop().create_future()


async def run(job: Job) -> Seen:
    """Do ``job``."""
    lanes = open_lanes(job)
    start = time.monotonic() + job.warm_up
    end = start + job.seconds
    loop = asyncio.get_running_loop()
    for name, at in (("begin", start), ("end", end)):
        loop.call_later(at - time.monotonic(), partial(print, name, flush=True))
    await asyncio.gather(*(lane.run(end) for lane in lanes))
    for lane in lanes:
        lane.close()
    answers = [(tokens_of(lane, messages), messages) for lane in lanes for messages in lane.requests]
    short = [len(arrivals) for arrivals, _ in answers if len(arrivals) != job.tokens]
    if short:
        raise RuntimeError(f"Answers of {job.tokens} tokens had {short[:5]} instead.")
    return Seen(
        seconds=job.seconds,
        messages=sum(start <= message.at < end for _, messages in answers for message in messages),
        tokens=sum(start <= at < end for arrivals, _ in answers for at in arrivals),
        arrivals=[arrivals for arrivals, _ in answers if start <= arrivals[0]],
    )


async def report(job: Job) -> None:
    """Do ``job`` and write what was seen; the connections go with this process."""
    sys.stdout.buffer.write(msgspec.json.encode(await run(job)) + b"\n")
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    """Do the job on the standard input."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    uvloop.run(hold(job) if job.idle else report(job))


if __name__ == "__main__":
    main()
