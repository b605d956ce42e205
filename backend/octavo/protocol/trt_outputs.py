"""Outputs that only TensorRT-LLM's models have: which a request gets, and what each holds. Knows no message.

Those with an element per token are [prompts, n, longest], with zeros behind what is shorter; ``sequence_length`` says what is not.
"""

import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from octavo.text.request import GenerateChunk, SampleDelta

_LOWEST_FLOAT = -3.4028234663852886e38
# An input that only clients of the core model send; they expect token ids without asking for them.
_CORE_INPUT = "request_output_len"


class TrtOutput(NamedTuple):
    """An output; ``flag``: the input that asks for it. ``values`` of a sample; ``many``: one per token, else one."""

    datatype: str
    code: str
    values: Callable[[SampleDelta], Sequence[float]]
    many: bool = False
    flag: str = ""


OUTPUTS: dict[str, TrtOutput] = {
    "output_log_probs": TrtOutput(
        "FP32",
        "f",
        lambda sample: [max(entry.logprobs[0], _LOWEST_FLOAT) for entry in sample.logprobs or ()],
        many=True,
        flag="return_log_probs",
    ),
    "output_ids": TrtOutput("INT32", "i", lambda sample: sample.token_ids, many=True, flag=_CORE_INPUT),
    "sequence_length": TrtOutput("INT32", "i", lambda sample: [len(sample.token_ids)], flag=_CORE_INPUT),
}
BATCH_INDEX = "batch_index"
DATATYPES = {name: output.datatype for name, output in OUTPUTS.items()} | {BATCH_INDEX: "INT32"}
NEEDS_LOGPROBS = {"output_log_probs"}


def asked_outputs(given: Mapping[str, Sequence[object]], listed: Collection[str]) -> tuple[str, ...]:
    """Those that a request gets: the ``listed`` ones, or if it lists none, those that one of its ``given`` inputs asks for."""
    if listed:
        return tuple(name for name in DATATYPES if name in listed)
    return tuple(name for name, output in OUTPUTS.items() if any(given.get(output.flag, ())))


def shape_of(name: str, chunk: GenerateChunk, prompts: int) -> list[int]:
    """The shape of an output in one message, which answers ``prompts`` prompts."""
    if name == BATCH_INDEX:
        return [prompts, 1]
    samples = len(chunk.samples) // prompts
    output = OUTPUTS[name]
    return [prompts, samples, _longest(output, chunk)] if output.many else [prompts, samples]


def data_of(name: str, chunk: GenerateChunk, prompts: int) -> bytes:
    """The bytes of an output in one message."""
    if name == BATCH_INDEX:
        return struct.pack(f"<{prompts}i", *range(prompts))
    output = OUTPUTS[name]
    width = _longest(output, chunk) if output.many else 1
    parts = []
    for sample in chunk.samples:
        values = output.values(sample)
        parts.append(struct.pack(f"<{len(values)}{output.code}", *values).ljust(width * 4, b"\0"))
    return b"".join(parts)


def _longest(output: TrtOutput, chunk: GenerateChunk) -> int:
    return max((len(output.values(sample)) for sample in chunk.samples), default=0)
