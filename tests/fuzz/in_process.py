"""The layers between bytes and an engine, without a socket: what reads gRPC messages and JSON bodies. Thousands a second."""

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tiny import write_snapshot

from fuzz import grpc_cases, http_cases
from fuzz.finding import Finding
from fuzz.front_end import CONFIG, DIALECTS, FrontEnd
from octavo.errors import ErrorKind, OctavoError
from octavo.protocol.generate import read_generate, write_generate
from octavo.protocol.rest import header_length, read_infer, write_infer
from octavo.text.tokenizer import load_tokenizer
from octavo.wire import pb

PATIENCE = 20.0
LONGEST_TEXT = 4096
NO_PROTOBUF = "no protobuf"
Ask = Callable[[FrontEnd, Any], Awaitable[None]]


def grpc_messages(count: int, seed: int) -> Counter[str]:
    """Read ``count`` damaged messages; how they ended. Raises ``Finding``."""
    return asyncio.run(_all(grpc_cases.cases(count, random.Random(seed)), _ask_grpc))


def http_bodies(count: int, seed: int) -> Counter[str]:
    """Read ``count`` damaged bodies; how they ended. Raises ``Finding``."""
    return asyncio.run(_all(http_cases.json_cases(count, random.Random(seed)), _ask_http))


async def _all(cases: Iterator[Any], ask: Ask) -> Counter[str]:
    with tempfile.TemporaryDirectory() as folder:
        write_snapshot(Path(folder) / "tiny")
        front_end = FrontEnd(load_tokenizer(Path(folder) / "tiny"))
    ends: Counter[str] = Counter()
    for case in cases:
        ends[await _one(front_end, case, ask)] += 1
    return ends


async def _one(front_end: FrontEnd, case: Any, ask: Ask) -> str:
    try:
        async with asyncio.timeout(PATIENCE):
            await ask(front_end, case)
    except DecodeError:
        return NO_PROTOBUF
    except OctavoError as error:
        if error.kind is ErrorKind.INTERNAL or not 0 < len(str(error)) < LONGEST_TEXT:
            raise Finding(case, error) from error
        return error.kind.name.lower()
    except Exception as error:
        raise Finding(case, error) from error
    return "answered"


async def _ask_grpc(front_end: FrontEnd, data: bytes) -> None:
    await front_end.infer(pb.ModelInferRequest.FromString(data), unary=False)


async def _ask_http(front_end: FrontEnd, call: http_cases.Call) -> None:
    if call.path == http_cases.INFER:
        length = header_length(call.headers.get(http_cases.HEADER_LENGTH), len(call.body))
        request, binary = read_infer(call.body, length, CONFIG.name, "", len(CONFIG.input))
        for message in await front_end.infer(request):
            write_infer(pb.ModelInferResponse.FromString(message), binary)
    elif call.path in DIALECTS:
        await front_end.complete(DIALECTS[call.path], call.body)
    else:
        generate = read_generate(call.body, CONFIG, "")
        for message in await front_end.infer(generate.request):
            write_generate(pb.ModelInferResponse.FromString(message))
