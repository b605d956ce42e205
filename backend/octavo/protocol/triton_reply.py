"""Triton's dialect, outwards: a ``GenerateChunk`` or an error to the messages that clients read. Knows no stream.

Data is always in ``raw_output_contents``: tritonclient reads nothing else. On a stream every message says whether it is
the last of its request, and the last has outputs: the separate message that ``triton_enable_empty_final_response`` asks
for, when nothing else carries the flag, is due for a request to stop others alone. Unary replies carry no parameters.

An output has one element per sample, all of the first prompt's before those of the second; ``num_input_tokens`` has one per
prompt; ``token_ids`` are the samples' new ids one after the other, as many of each as ``num_output_tokens`` says.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from octavo.engine.messages import TokenLogprobs
from octavo.errors import NotFound, OctavoError, Overloaded
from octavo.protocol.rejection import MAX_ID_BYTES, RejectedRequest
from octavo.protocol.tensors import datatype_name
from octavo.protocol.triton import TritonCall, TritonStop
from octavo.protocol.trt_outputs import DATATYPES, data_of, shape_of
from octavo.text.request import GenerateChunk, SampleDelta
from octavo.wire import mc, pb
from octavo.wire.varint import varint

FINAL = "triton_final_response"
MAX_ERROR_CHARACTERS = 4096
LOWEST_LOGPROB = -9999.0  # what vLLM writes for minus infinity, which JSON cannot
_INFER_RESPONSE = bytes([pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER << 3 | 2])
_RAW_CONTENTS = bytes([pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER << 3 | 2])
_LENGTH = struct.Struct("<I")
_DATATYPES = {
    "text_output": "BYTES",
    "finish_reason": "BYTES",
    "cumulative_logprob": "FP32",
    "cum_log_probs": "FP32",
    "logprobs": "BYTES",
    "num_input_tokens": "UINT32",
    "num_output_tokens": "UINT32",
    "token_ids": "INT32",
    "stop_reason": "BYTES",
    **DATATYPES,
}

_VARYING = {"token_ids", *DATATYPES}
TokenText = Callable[[int], str]


class TritonReply:
    """Writes the messages of one call. ``token_text`` gives a token's own text, for logprobs."""

    __slots__ = ("_call", "_head", "_heads", "_prefixes", "_prompts", "_starts", "_text_alone", "_token_text", "_varying")

    def __init__(self, call: TritonCall, token_text: TokenText) -> None:
        """Prepare what all messages of ``call`` share."""
        self._call = call
        self._token_text = token_text
        self._prefixes = call.prefixes
        request = call.request
        self._prompts, answers = len(request.prompts), len(request.prompts) * request.sampling.n
        self._head, self._varying, names, outputs = _shared(request.model, request.version, call.outputs, self._prompts, answers)
        start = names + _id_field(call.id)
        self._starts = {final: start + field + outputs for final, field in _FINAL.items()}
        self._heads: dict[int, bytes] = {}  # of messages of one text that are not final, by its length
        self._text_alone = call.outputs == ("text_output",) and answers == 1

    def unary(self, chunk: GenerateChunk) -> pb.ModelInferResponse:
        """The reply to ``ModelInfer``; ``chunk`` must be the whole answer."""
        response = pb.ModelInferResponse()
        self._fill(response, chunk)
        return response

    def streamed(self, chunk: GenerateChunk) -> bytes:
        """One message of a stream, a serialized ``ModelStreamInferResponse``."""
        if self._text_alone and not chunk.final and not self._prefixes:  # what nearly every message is
            text = chunk.samples[0].text.encode()
            length = len(text)
            return (self._heads.get(length) or self._head_of(length)) + text
        parts = [self._starts[chunk.final]]
        if self._varying:
            parts.append(self._described(chunk))
        for name in self._call.outputs:
            output = self._output(name, chunk)
            parts += (_RAW_CONTENTS, varint(len(output)), output)
        response = b"".join(parts)
        return _INFER_RESPONSE + varint(len(response)) + response

    def _head_of(self, length: int) -> bytes:
        """What stands before a text of ``length`` bytes, which is all that a message brings."""
        start = self._starts[False] + _RAW_CONTENTS + varint(length + _LENGTH.size) + _LENGTH.pack(length)
        head = self._heads[length] = _INFER_RESPONSE + varint(len(start) + length) + start
        return head

    def _described(self, chunk: GenerateChunk) -> bytes:
        """The field ``outputs``, which changes with the number of tokens alone."""
        outputs = pb.ModelInferResponse(outputs=self._head.outputs)
        self._shape(outputs, chunk)
        return outputs.SerializeToString()

    def _shape(self, response: pb.ModelInferResponse, chunk: GenerateChunk) -> None:
        for place, name in self._varying:
            shape = [_num_ids(chunk)] if name == "token_ids" else shape_of(name, chunk, self._prompts)
            response.outputs[place].shape[:] = shape

    def _fill(self, response: pb.ModelInferResponse, chunk: GenerateChunk) -> None:
        response.CopyFrom(self._head)
        response.id = self._call.id
        self._shape(response, chunk)
        response.raw_output_contents.extend([self._output(name, chunk) for name in self._call.outputs])

    def _output(self, name: str, chunk: GenerateChunk) -> bytes:
        samples = chunk.samples
        match name:
            case "text_output":
                data = self._texts(samples)
            case "finish_reason":
                data = _strings(str(sample.finish_reason) for sample in samples)
            case "cumulative_logprob" | "cum_log_probs":
                data = _pack("f", [max(sample.cumulative_logprob or 0.0, _LOWEST_FLOAT) for sample in samples])
            case "logprobs":
                data = _strings(self._logprobs(sample) for sample in samples)
            case "num_input_tokens":
                data = _pack("I", [len(token_ids) for token_ids in chunk.prompt_token_ids])
            case "token_ids":
                data = _pack("i", [token_id for sample in samples for token_id in sample.token_ids])
            case "num_output_tokens":
                data = _pack("I", [len(sample.token_ids) for sample in samples])
            case "stop_reason":
                data = _strings(str(sample.stop_reason) for sample in samples)
            case _:
                data = data_of(name, chunk, self._prompts)
        return data

    def _texts(self, samples: Sequence[SampleDelta]) -> bytes:
        """The new text of each sample, at first with what stands before it."""
        if self._prefixes:
            prefixes, self._prefixes = self._prefixes, ()
            of_each = self._call.request.sampling.n
            return _strings(prefixes[place // of_each] + sample.text for place, sample in enumerate(samples))
        return _strings(sample.text for sample in samples)

    def _logprobs(self, sample: SampleDelta) -> str:
        """vllm_backend's JSON: a list with an object per new token, keyed by token id."""
        if not self._call.show_logprobs or sample.logprobs is None:
            return "null"
        return msgspec.json.encode([self._position(entry) for entry in sample.logprobs]).decode()

    def _position(self, entry: TokenLogprobs) -> dict[str, dict[str, float | int | str]]:
        return {
            str(token_id): {"logprob": max(logprob, LOWEST_LOGPROB), "rank": rank, "decoded_token": self._token_text(token_id)}
            for token_id, logprob, rank in zip(entry.token_ids, entry.logprobs, entry.ranks, strict=True)
        }


class StopReply:
    """Words the answer to a request that ended others: an empty message where there has to be one."""

    def __init__(self, stop: TritonStop, version: int) -> None:
        """``version``: the one that it was sent to."""
        self._stop, self._version = stop, version

    def unary(self, _: GenerateChunk) -> pb.ModelInferResponse:
        """The reply to ``ModelInfer``."""
        return pb.ModelInferResponse(model_name=self._stop.model, model_version=str(self._version), id=self._stop.id)

    def streamed(self, _: GenerateChunk) -> bytes | None:
        """The serialized message on a stream, None if the client did not ask for one. It has no version, as in Triton."""
        if not self._stop.wants_final:
            return None
        message = pb.ModelStreamInferResponse()
        message.infer_response.model_name, message.infer_response.id = self._stop.model, self._stop.id
        message.infer_response.parameters[FINAL].bool_param = True
        return message.SerializeToString()


def is_rejection(error: OctavoError) -> bool:
    """Whether real Triton would have refused before the model saw the request; such errors never close a stream."""
    return isinstance(error, RejectedRequest | NotFound | Overloaded)


def stream_error(error: OctavoError, request_id: str, model: str) -> pb.ModelStreamInferResponse:
    """The message that ends a request with ``error``, without an id that is too long. The stream lives on."""
    message = pb.ModelStreamInferResponse(error_message=str(error)[:MAX_ERROR_CHARACTERS])
    message.infer_response.id = request_id if len(request_id.encode()) <= MAX_ID_BYTES else ""
    if not is_rejection(error):
        message.infer_response.model_name = model
        message.infer_response.parameters[FINAL].bool_param = True
    return message


def model_metadata(config: mc.ModelConfig, versions: Sequence[int]) -> pb.ModelMetadataResponse:
    """What ``ModelMetadata`` says: wire names of types, and shapes with the batch dimension if there is one."""
    batch = [-1] if config.max_batch_size > 0 else []
    tensor = pb.ModelMetadataResponse.TensorMetadata
    return pb.ModelMetadataResponse(
        name=config.name,
        versions=[str(version) for version in versions],
        platform=config.platform or config.backend,
        inputs=[tensor(name=t.name, datatype=datatype_name(t.data_type), shape=[*batch, *t.dims]) for t in config.input],
        outputs=[tensor(name=t.name, datatype=datatype_name(t.data_type), shape=[*batch, *t.dims]) for t in config.output],
    )


_LOWEST_FLOAT = -3.4028234663852886e38


class _Shared(NamedTuple):
    """What the messages of all calls to one version for the same outputs have in common.

    ``head``: all but the id. ``varying``: place and name of outputs whose shape is another in each message. ``names`` and
    ``outputs``: the fields of a serialized response before and after its id and parameters; no ``outputs`` if one of them varies.
    """

    head: pb.ModelInferResponse
    varying: list[tuple[int, str]]
    names: bytes
    outputs: bytes


@lru_cache(maxsize=1024)
def _shared(model: str, version: int, outputs: tuple[str, ...], prompts: int, answers: int) -> _Shared:
    names = pb.ModelInferResponse(model_name=model, model_version=str(version))
    head = pb.ModelInferResponse(model_name=model, model_version=str(version))
    for name in outputs:
        shape = [prompts] if name == "num_input_tokens" else [answers]
        head.outputs.add(name=name, datatype=_DATATYPES[name], shape=shape)
    varying = [(place, name) for place, name in enumerate(outputs) if name in _VARYING]
    fixed = b"" if varying else pb.ModelInferResponse(outputs=head.outputs).SerializeToString()
    return _Shared(head, varying, names.SerializeToString(), fixed)


def _id_field(request_id: str) -> bytes:
    return pb.ModelInferResponse(id=request_id).SerializeToString()


def _final_field(final: bool) -> bytes:
    response = pb.ModelInferResponse()
    response.parameters[FINAL].bool_param = final
    return response.SerializeToString()


_FINAL = {final: _final_field(final) for final in (False, True)}


def _num_ids(chunk: GenerateChunk) -> int:
    return sum(len(sample.token_ids) for sample in chunk.samples)


def _strings(texts: Iterable[str]) -> bytes:
    """Each with its length before it, 4 bytes little-endian."""
    parts: list[bytes] = []
    for text in texts:
        data = text.encode()
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def _pack(code: str, values: list[int] | list[float]) -> bytes:
    return struct.pack(f"<{len(values)}{code}", *values)
