"""HTTP calls that were right once, and what a fuzzer makes of their bodies and heads."""

import gzip
import json
import random
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from fuzz import damage
from fuzz.grpc_cases import CHAT, DATATYPES, NAMES, OUTPUTS, PARAMETERS, SHAPES

HEADER_LENGTH = "Inference-Header-Content-Length"
INFER, GENERATE, STREAM = (f"/v2/models/tiny/{verb}" for verb in ("infer", "generate", "generate_stream"))

COMPLETIONS, CHAT_COMPLETIONS, RESPONSES, TOKENIZE = (
    f"/v1/{verb}" for verb in ("completions", "chat/completions", "responses", "tokenize")
)


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "null"}}}}}
CALLED = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": null}'}}
ITEMS = [
    {"role": "user", "content": "hello"},
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
]


class Call(NamedTuple):
    """A POST."""

    path: str
    headers: dict[str, str]
    body: bytes


def text_tensor(*texts: str, name: str = "text_input") -> dict[str, Any]:
    """A string tensor as JSON."""
    return {"name": name, "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}


def bodies() -> list[tuple[str, dict[str, Any]]]:
    """Calls with a JSON body that are right: path and body."""
    sampling = {"temperature": 0, "max_tokens": 2, "stop": "x", "ignore_eos": True}
    flag = {"name": "stream", "datatype": "BOOL", "shape": [1], "data": [False]}
    chat = json.loads(CHAT)
    return [
        (INFER, {"id": "i", "inputs": [text_tensor("hello"), flag], "parameters": sampling, "outputs": [{"name": "text_output"}]}),
        (INFER, {"inputs": [text_tensor("a", "b"), {"name": "max_tokens", "datatype": "INT32", "shape": [1], "data": [2]}]}),
        (INFER, {"inputs": [text_tensor(CHAT, name="messages")], "parameters": {"binary_data_output": True, "max_tokens": 1}}),
        (GENERATE, {"text_input": "hello", "id": "g", **sampling, "parameters": {"top_p": 0.5, "details": True}}),
        (GENERATE, {"messages": chat, "max_tokens": 2, "stop": ["a", "b"], "logit_bias": {"65": 1.5}, "logprobs": 2}),
        (GENERATE, {"input_ids": [5, 6, 7], "max_tokens": 1, "return_token_ids": True, "sampling_parameters": {"n": 2, "seed": 1}}),
        (STREAM, {"text_input": "hello", "stream": True, "max_tokens": 3}),
        (STREAM, {"messages": chat, "max_tokens": 2, "stream": True}),
        (
            COMPLETIONS,
            {"model": "tiny", "prompt": "hello", "max_tokens": 2, "n": 2, "temperature": 1.0, "logprobs": 1, "stop": ["a"]},
        ),
        (COMPLETIONS, {"model": "tiny", "prompt": [[5, 6], [7]], "max_tokens": 1, "echo": True, "stream": True}),
        (CHAT_COMPLETIONS, {"model": "tiny", "messages": chat, "max_tokens": 2, "logprobs": True, "top_logprobs": 2, "seed": 1}),
        (
            CHAT_COMPLETIONS,
            {"model": "tiny", "messages": chat, "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 2},
        ),
        (RESPONSES, {"model": "tiny", "input": "hello", "instructions": "Be brief.", "max_output_tokens": 2, "stream": False}),
        (RESPONSES, {"model": "tiny", "input": chat, "max_output_tokens": 1, "temperature": 0.0, "stream": True}),
        (CHAT_COMPLETIONS, {"model": "tiny", "messages": chat, "max_tokens": 2, "tools": [TOOL], "tool_choice": "required"}),
        (
            CHAT_COMPLETIONS,
            {"model": "tiny", "messages": [{"role": "assistant", "content": "", "tool_calls": [CALLED]}], "max_tokens": 1},
        ),
        (RESPONSES, {"model": "tiny", "input": ITEMS, "max_output_tokens": 1, "text": {"format": {"type": "json_object"}}}),
    ]


def calls() -> list[Call]:
    """Calls of every kind that are right."""
    made = [Call(path, {}, json.dumps(body).encode()) for path, body in bodies()]
    made += [_binary(), Call(INFER, {"Content-Encoding": "gzip"}, gzip.compress(made[0].body, mtime=0))]
    made += [
        Call("/v2/models/tiny/versions/1/infer", {}, made[1].body),
        Call("/v2/repository/index", {}, b'{"ready": true}'),
        Call(TOKENIZE, {}, b'{"model": "tiny", "prompt": "hello", "add_special_tokens": false}'),
        Call("/v2/repository/models/nope/unload", {}, b'{"parameters": {"unload_dependents": false}}'),
    ]
    return made


def _binary() -> Call:
    data = b"hello"
    sized = text_tensor("") | {"parameters": {"binary_data_size": 4 + len(data)}}
    del sized["data"]
    output = {"name": "text_output", "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [sized], "outputs": [output], "parameters": {"max_tokens": 1}}).encode()
    return Call(INFER, {HEADER_LENGTH: str(len(head))}, head + struct.pack("<I", len(data)) + data)


def json_cases(count: int, chance: random.Random) -> Iterator[Call]:
    """``count`` calls whose bodies have damaged members, damaged bytes or both; their heads are right."""
    structured = bodies()
    whole = calls()[: len(structured) + 1]
    for _ in range(count):
        if chance.random() < 0.5:
            call = chance.choice(whole)
            yield call._replace(body=damage.damaged(call.body, chance))
            continue
        path, members = chance.choice(structured)
        members = json.loads(json.dumps(members))
        for _ in range(chance.choice((1, 1, 2, 3))):
            _change(members, chance)
        body = json.dumps(members, ensure_ascii=chance.random() < 0.5).encode(errors="surrogatepass")
        yield Call(path, {}, damage.damaged(body, chance) if chance.random() < 0.1 else body)


def wire_cases(count: int, chance: random.Random) -> Iterator[Call]:
    """``count`` calls of every route."""
    whole = calls()
    for call in json_cases(count, chance):
        other = chance.choice(whole)
        yield call if chance.random() < 0.7 else other._replace(body=damage.damaged(other.body, chance))


def raw_cases(count: int, chance: random.Random) -> Iterator[bytes]:
    """``count`` calls as they stand on the wire, with damage anywhere: lines, names, lengths, chunks."""
    whole = calls()
    for _ in range(count):
        call = chance.choice(whole)
        if chance.random() < 0.5:
            framing, body = f"Content-Length: {len(call.body)}", call.body
        else:
            half = len(call.body) // 2
            framing, body = "Transfer-Encoding: chunked", b"".join(map(_chunk, (call.body[:half], call.body[half:], b"")))
        lines = [f"POST {call.path} HTTP/1.1", "Host: x", "Connection: close", framing]
        lines += [f"{name}: {value}" for name, value in call.headers.items()]
        head = "\r\n".join([*lines, "\r\n"]).encode()
        yield damage.damaged(head, chance) + body if chance.random() < 0.6 else damage.damaged(head + body, chance)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _change(members: dict[str, Any], chance: random.Random) -> None:
    """Make one member of a body, or of something in it, another."""
    place: Any = members
    while chance.random() < 0.5:
        inner = [one for one in (place.values() if isinstance(place, dict) else place) if isinstance(one, dict | list)]
        if not inner:
            break
        place = chance.choice(inner)
    if isinstance(place, list):
        place.insert(chance.randrange(len(place) + 1), damage.value(chance))
        return
    match chance.randrange(9):
        case 0 if place:
            del place[chance.choice(list(place))]
        case 1 if place:
            place[chance.choice(list(place))] = damage.value(chance)
        case 4 | 5 | 6 | 7 if place:
            changed = chance.choice(list(place))
            place[changed] = damage.alike(place[changed], chance)
        case 2:
            place[chance.choice(PARAMETERS + NAMES)] = damage.value(chance)
        case 3:
            place["shape"], place["datatype"] = list(chance.choice(SHAPES)), chance.choice(DATATYPES)
        case _:
            place["outputs"] = [{"name": chance.choice(OUTPUTS), "parameters": damage.value(chance)}]
