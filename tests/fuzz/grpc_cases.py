"""gRPC messages that were right once: whole requests of every kind, and what a fuzzer makes of them."""

import json
import random
import struct
from collections.abc import Iterator

from fuzz import damage
from octavo.wire import pb

DATATYPES = ("BYTES", "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT32", "UINT64", "FP16", "BF16", "FP32", "FP64", "", "?")
CODES = {"BOOL": "?", "INT32": "i", "UINT32": "I", "INT64": "q", "UINT64": "Q", "FP32": "f"}
NAMES = (
    "text_input", "stream", "sampling_parameters", "exclude_input_in_output", "return_logprobs", "return_token_ids", "messages",
    "input_ids", "input_lengths", "stop", "streaming", "max_tokens", "stop_words", "bad_words", "end_id", "temperature",
    "random_seed", "x", "",
)  # fmt: skip
PARAMETERS = (
    "temperature", "n", "stop", "seed", "logit_bias", "priority", "timeout", "triton_x", "cache_salt", "headers", "sequence_id",
    "best_of", "max_tokens", "min_tokens", "logprobs", "prompt_logprobs", "triton_enable_empty_final_response",
    "shared_memory_region", "classification",
)  # fmt: skip
OUTPUTS = ("text_output", "finish_reason", "logprobs", "token_ids", "num_input_tokens", "cum_log_probs", "x", "")
SHAPES = ((), (1,), (1, 1), (2,), (0,), (-1,), (2**40, 2**40), (2**63 - 1,), (1,) * 9, (3, 1), (1, 3))
CHAT = json.dumps([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}, {"role": "user", "content": "?"}])


def request(model: str = "tiny", /, **tensors: object) -> pb.ModelInferRequest:
    """A request: ``str`` is a string tensor, ``bool`` a flag, ``list`` numbers or strings; a name may end in ``:DATATYPE``."""
    made = pb.ModelInferRequest(model_name=model, id="fuzz")
    for key, given in tensors.items():
        name, _, datatype = key.partition(":")
        values = given if isinstance(given, list) else [given]
        datatype = datatype or {bool: "BOOL", str: "BYTES", int: "INT32", float: "FP32"}[type(values[0])]
        made.inputs.add(name=name, datatype=datatype, shape=[len(values)])
        made.raw_input_contents.append(packed(datatype, values))
    return made


def packed(datatype: str, values: list) -> bytes:
    """``values`` as the bytes of a tensor."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(one.encode())) + one.encode() for one in values)
    return struct.pack(f"<{len(values)}{CODES[datatype]}", *values)


def whole_requests(model: str = "tiny") -> list[pb.ModelInferRequest]:
    """Requests of every kind that are right."""
    options = json.dumps({"temperature": 0, "max_tokens": 2, "stop": ["x", "yz"], "logit_bias": {"65": 2}, "logprobs": 2})
    flags = {"return_logprobs": True, "return_token_ids": True, "return_finish_reason": True, "exclude_input_in_output": True}
    made = [
        request(model, text_input="hello", stream=True, sampling_parameters=options, **flags),
        request(model, text_input=["one", "two", "three"], max_tokens=[2]),
        request(model, messages=CHAT, stream=False, sampling_parameters='{"max_tokens": 1, "n": 3, "temperature": 1.0}'),
        request(model, input_ids=[5, 6, 7], **{"max_tokens:INT32": [2], "temperature:FP32": [0.5], "random_seed:UINT64": [7]}),
        request(model, text_input="a b", stop_words=["x"], end_id=[3], streaming=True, **{"max_tokens:UINT32": [1]}),
        request(model, stop=True),
        request(model, text_input="hello"),
        pb.ModelInferRequest(model_name=model, model_version="1"),
    ]
    typed = made[-1].inputs.add(name="text_input", datatype="BYTES", shape=[1, 1])
    typed.contents.bytes_contents.append(b"typed")
    parameters = {"temperature": 0.0, "max_tokens": 2, "stop": "x", "ignore_eos": True, "priority": 1, "timeout": 10**6}
    for name, given in parameters.items():
        add_parameter(made[-2], name, given)
    made[-2].outputs.add(name="text_output")
    made[-2].outputs.add(name="logprobs")
    return made


def add_parameter(to: pb.ModelInferRequest, name: str, given: object) -> None:
    """A parameter of the type that ``given`` has."""
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    setattr(to.parameters[name], kinds[type(given)], given)


def cases(count: int, chance: random.Random) -> Iterator[bytes]:
    """``count`` messages: some with damaged fields, some with damaged bytes, some with both."""
    whole = whole_requests()
    encoded = [one.SerializeToString(deterministic=True) for one in whole]
    for _ in range(count):
        at = chance.randrange(len(whole))
        if chance.random() < 0.35:
            yield damage.damaged(encoded[at], chance)
            continue
        changed = pb.ModelInferRequest()
        changed.CopyFrom(whole[at])
        for _ in range(chance.choice((1, 1, 2, 3))):
            _change(changed, chance)
        data = changed.SerializeToString()
        yield damage.damaged(data, chance) if chance.random() < 0.1 else data


def _change(message: pb.ModelInferRequest, chance: random.Random) -> None:
    """Make one field of ``message`` another."""
    match chance.randrange(10):
        case 0:
            _set_parameter(message.parameters[chance.choice(PARAMETERS) if chance.random() < 0.9 else damage.text(chance)], chance)
        case 1 if message.raw_input_contents:
            _damage_contents(message.raw_input_contents, chance)
        case 2:
            message.outputs.add(name=chance.choice(OUTPUTS))
        case 3:
            message.id = damage.text(chance)
        case 4:
            message.model_name, message.model_version = chance.choice(("tiny", "tiny", "x", "")), damage.text(chance)[:30]
        case 5:
            added = message.inputs.add(name=chance.choice(NAMES), datatype=chance.choice(DATATYPES), shape=chance.choice(SHAPES))
            _fill(added, chance)
        case 6 if message.raw_input_contents:
            message.raw_input_contents[chance.randrange(len(message.raw_input_contents))] = _options(chance)
        case _ if message.inputs:
            _change_input(message.inputs[chance.randrange(len(message.inputs))], chance)


def _change_input(tensor: pb.ModelInferRequest.InferInputTensor, chance: random.Random) -> None:
    match chance.randrange(5):
        case 0:
            tensor.name = chance.choice(NAMES)
        case 1:
            tensor.datatype = chance.choice(DATATYPES)
        case 2:
            tensor.shape[:] = chance.choice(SHAPES)
        case 3:
            _set_parameter(tensor.parameters[chance.choice(PARAMETERS)], chance)
        case _:
            _fill(tensor, chance)


def _set_parameter(parameter: pb.InferParameter, chance: random.Random) -> None:
    match chance.randrange(6):
        case 0:
            parameter.bool_param = chance.random() < 0.5
        case 1:
            parameter.int64_param = damage.number(chance)
        case 2:
            parameter.uint64_param = abs(damage.number(chance))
        case 3:
            parameter.double_param = damage.real(chance)
        case 4:
            parameter.string_param = damage.text(chance)
        case _:
            parameter.Clear()


def _fill(tensor: pb.ModelInferRequest.InferInputTensor, chance: random.Random) -> None:
    """Typed contents of any kind."""
    match chance.randrange(5):
        case 0:
            tensor.contents.bool_contents.append(chance.random() < 0.5)
        case 1:
            tensor.contents.int_contents.extend([chance.randint(-(2**31), 2**31 - 1)] * chance.randrange(3))
        case 2:
            tensor.contents.bytes_contents.append(damage.text(chance).encode())
        case 3:
            tensor.contents.fp32_contents.append(chance.uniform(-1, 1))
        case _:
            tensor.contents.uint64_contents.append(abs(damage.number(chance)))


def _damage_contents(contents: list, chance: random.Random) -> None:
    at = chance.randrange(len(contents))
    match chance.randrange(4):
        case 0:
            del contents[at]
        case 1:
            contents.append(b"\0")
        case 2:
            contents[at] = packed("BYTES", [damage.text(chance)])
        case _:
            contents[at] = damage.damaged(contents[at], chance)


def _options(chance: random.Random) -> bytes:
    """A string tensor of sampling options, or of what looks like messages."""
    if chance.random() < 0.3:
        chat = [{"role": chance.choice(("user", "x", None)), "content": damage.value(chance)}, damage.value(chance)]
        return packed("BYTES", [json.dumps(chat[: chance.randint(0, 2)])])
    return packed("BYTES", [json.dumps({chance.choice(PARAMETERS): damage.value(chance) for _ in range(chance.randint(1, 3))})])
