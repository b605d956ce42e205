"""A closed-loop streaming client: some lanes, each with one request under way, over ``ModelStreamInfer``. Knows the wire only."""

import asyncio
import json
import time
from dataclasses import dataclass, field

import grpc
import numpy as np

from octavo.wire import pb

STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
SERVER_READY = "/inference.GRPCInferenceService/ServerReady"


@dataclass
class RequestTiming:
    """One request as its client saw it, in seconds: to the first message and between later ones; and the server's token count."""

    first: float = 0.0
    gaps: list[float] = field(default_factory=list)
    tokens: int = 0
    total: float = 0.0


def generate_request(model: str, prompt: str, max_tokens: int, request_id: str) -> pb.ModelInferRequest:
    """A streamed greedy request of exactly ``max_tokens`` tokens that also asks for the number of tokens in each message."""
    request = pb.ModelInferRequest(model_name=model, id=request_id)
    sampling = json.dumps({"max_tokens": max_tokens, "ignore_eos": True, "temperature": 0})
    for name, text in (("text_input", prompt), ("sampling_parameters", sampling)):
        request.inputs.add(name=name, datatype="BYTES", shape=[1])
        data = text.encode()
        request.raw_input_contents.append(len(data).to_bytes(4, "little") + data)
    for name in ("stream", "exclude_input_in_output", "return_num_output_tokens"):
        request.inputs.add(name=name, datatype="BOOL", shape=[1])
        request.raw_input_contents.append(b"\x01")
    return request


async def run_load(address: str, model: str, prompts: list[str], lanes: int, max_tokens: int) -> list[RequestTiming]:
    """Send every prompt once, ``lanes`` at a time, and time each. Raises ``RuntimeError`` with the server's text on any error."""
    todo = iter(enumerate(prompts))
    timings: list[RequestTiming] = []
    options = [("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call = channel.stream_stream(
            STREAM_INFER,
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )

        async def lane() -> None:
            for number, prompt in todo:
                stream = call(iter([generate_request(model, prompt, max_tokens, str(number))]))
                timings.append(await _time_stream(stream))

        await asyncio.gather(*(lane() for _ in range(lanes)))
    return timings


async def wait_until_ready(address: str, timeout: float) -> None:
    """Return once ``ServerReady`` says so; ``TimeoutError`` after ``timeout`` seconds."""
    async with asyncio.timeout(timeout), grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(
            SERVER_READY,
            request_serializer=pb.ServerReadyRequest.SerializeToString,
            response_deserializer=pb.ServerReadyResponse.FromString,
        )
        while not (await call(pb.ServerReadyRequest(), wait_for_ready=True)).ready:
            await asyncio.sleep(0.02)


async def _time_stream(stream: grpc.aio.StreamStreamCall) -> RequestTiming:
    timing = RequestTiming()
    start = last = time.perf_counter()
    async for message in stream:
        if message.error_message:
            raise RuntimeError(message.error_message)
        now = time.perf_counter()
        if timing.tokens:
            timing.gaps.append(now - last)
        else:
            timing.first = now - start
        timing.tokens += _token_count(message.infer_response)
        last = now
    timing.total = last - start
    return timing


def _token_count(response: pb.ModelInferResponse) -> int:
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if tensor.name == "num_output_tokens":
            return int(np.frombuffer(raw, dtype="<u4").sum())
    return 0
