"""What a server answered, as plain data in which only that is left what two right servers must agree on."""

import json
import math
import re
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2 as pb

LLM = "llm"
# The tensors that vllm_backend has; a server may offer more of its own.
LLM_TENSORS = {
    "text_input", "stream", "sampling_parameters", "exclude_input_in_output", "return_finish_reason", "return_cumulative_logprob",
    "return_logprobs", "return_num_input_tokens", "return_num_output_tokens", "text_output", "finish_reason", "cumulative_logprob",
    "logprobs", "num_input_tokens", "num_output_tokens",
}  # fmt: skip
CODES = {"BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i",
          "INT64": "q", "FP32": "f", "FP64": "d"}  # fmt: skip
# What differs by the model and not by the server: its words, its numbers and its tokens.
_MODELS_OWN = {"text_output": "<text>", "cumulative_logprob": "<number>", "num_input_tokens": "<number>"}
_TIMES = {"ns", "last_inference"}

Data = dict[str, Any]


def plain(message: Message) -> Data:
    """A reply. Times are blanked, and of a language model what is its own."""
    if isinstance(message, pb.ModelInferResponse):
        return infer_response(message)
    data: Data = MessageToDict(message, preserving_proto_field_name=True)
    if isinstance(message, pb.ModelConfigResponse):
        data["config"]["input"] = _known(data["config"].get("input", []), message.config.name)
        data["config"]["output"] = _known(data["config"].get("output", []), message.config.name)
    if isinstance(message, pb.ModelMetadataResponse):
        data["inputs"] = _known(data.get("inputs", []), message.name)
        data["outputs"] = _known(data.get("outputs", []), message.name)
    if isinstance(message, pb.RepositoryIndexResponse):
        return {"models": {f"{m.get('name')} {m.get('version', '-')}": _index_entry(m) for m in data.get("models", [])}}
    return _without_times(data)


def infer_response(response: pb.ModelInferResponse) -> Data:
    """A response with the values of its outputs in place of their bytes."""
    data: Data = MessageToDict(response, preserving_proto_field_name=True)
    data.pop("raw_output_contents", None)
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        described = next(entry for entry in data["outputs"] if entry["name"] == output.name)
        own = response.model_name == LLM and output.name in _MODELS_OWN
        described["values"] = _MODELS_OWN[output.name] if own else values(output.datatype, output.shape, raw)
    return data


def stream(messages: Iterable[pb.ModelStreamInferResponse], code: str, text: str) -> Data:
    """All of a stream: messages by the id of their request, because requests are served side by side, and how it ended.

    A language model's equal messages in a row count as one: how many tokens travel in a message is not promised.
    """
    by_id: dict[str, list[Data]] = {}
    for message in messages:
        data: Data = {"infer_response": infer_response(message.infer_response)}
        if message.error_message:
            data["error_message"] = words(message.error_message)
        said = by_id.setdefault(message.infer_response.id or "<none>", [])
        if message.infer_response.model_name != LLM or not said or said[-1] != data:
            said.append(data)
    return {"code": code, "text": words(text), "messages": by_id}


def refused(code: str, text: str) -> Data:
    """How a call failed."""
    return {"code": code, "text": words(text)}


def http_response(status: int, headers: Mapping[str, str], body: bytes) -> Data:
    """A reply over HTTP: its JSON, or its events, or its binary tensors after the JSON that describes them."""
    lower = {name.lower(): value for name, value in headers.items()}
    data: Data = {"code": status, "type": lower.get("content-type", "").partition(";")[0]}
    if data["type"] == "text/event-stream":
        events = [json.loads(line.removeprefix(b"data: ")) for line in body.split(b"\n\n") if line]
        return {**data, "reply": _without_repeats([_of_json(event) for event in events])}
    length = int(lower.get("inference-header-content-length", len(body)))
    reply = _of_json(json.loads(body[:length])) if body[:length].startswith((b"{", b"[")) else body[:length].decode()
    if isinstance(reply, dict) and set(reply) == {"error"}:
        return {**data, "text": words(reply["error"])}
    return {**data, "reply": reply, "binary": body[length:].hex()}


def words(text: str) -> str:
    """A text without what is free in it: the order of names, a language model's further inputs, why a model's own code failed."""
    text = re.sub(r"(?<=Got input\(s\) \[)[^\]]+", lambda names: ",".join(sorted(names[0].split(","))), text)
    text = re.sub(rf"between 1 and \d+ (but got \d+ inputs for model '{LLM}')", r"between 1 and <all> \1", text)
    return re.sub(r"(?<=Internal: ).*?(?=;\n|\Z)", "<reason>", text, flags=re.DOTALL)


def values(datatype: str, shape: Iterable[int], raw: bytes) -> list[Any] | str:
    """The elements in ``raw``."""
    count = math.prod(shape)
    if datatype != "BYTES":
        return list(struct.unpack(f"<{count}{CODES[datatype]}", raw))
    strings, at = [], 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        strings.append(raw[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return strings


def text_of(data: Data) -> str:
    """All answers as they stand in a file, a line each."""
    lines = [f"{json.dumps(case)}: {json.dumps(answer, sort_keys=True)}" for case, answer in sorted(data.items())]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _known(tensors: list[Data], model: str) -> dict[str, Data]:
    return {tensor["name"]: tensor for tensor in tensors if model != LLM or tensor["name"] in LLM_TENSORS}


def _of_json(value: Any) -> Any:
    """JSON with a language model's own words, the tensors that only a server of its own has, and times left out."""
    value = _without_times(value)
    if isinstance(value, dict):
        for name in {"text_output"} & set(value):
            value[name] = "<text>"
        for group in {"inputs", "outputs", "input", "output"} & set(value):
            if "shape" not in str(value[group]) or value.get("name") == LLM:
                value[group] = _known(value[group], str(value.get("name")))
    if isinstance(value, list) and all("state" in entry or set(entry) == {"name"} for entry in value):
        return {f"{entry['name']} {entry.get('version', '-')}": _index_entry(entry) for entry in value}
    return value


def _without_repeats(items: list[Any]) -> list[Any]:
    return [item for place, item in enumerate(items) if place == 0 or item != items[place - 1]]


def _index_entry(entry: Data) -> Data:
    return {key: words(value) for key, value in entry.items() if key not in ("name", "version")}


def _without_times(data: Any) -> Any:
    if isinstance(data, list):
        return [_without_times(item) for item in data]
    if isinstance(data, dict):
        return {key: "<time>" if key in _TIMES else _without_times(value) for key, value in data.items()}
    return data
