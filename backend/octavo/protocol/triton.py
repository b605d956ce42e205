"""Triton's dialect, inwards: a ``ModelInferRequest`` with vllm_backend's tensors to a ``GenerateRequest``.

Tensors and defaults are vllm_backend's: ``text_input`` alone is required, the prompt is put before the text unless it is
streamed or ``exclude_input_in_output`` is true, and further outputs come only if a ``return_*`` flag asks for them. Beyond
that: ``messages`` or ``input_ids`` in place of ``text_input``, several prompts in one request, ``return_token_ids``, and the
names that TensorRT-LLM's clients send.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from octavo.config import DEFAULT_LIMITS, RequestLimits
from octavo.errors import InvalidRequest, Unsupported
from octavo.protocol.aliases import ALIASES, OUTPUTS, option_names, output_names, translate
from octavo.protocol.parameters import RequestParameters, read_parameters, read_sampling_json
from octavo.protocol.prompts import read_prompts
from octavo.protocol.rejection import check_id
from octavo.protocol.sampling_fields import sampling_params
from octavo.protocol.tensors import Element, Inputs, TensorSpec, check_counts, check_outputs, datatype_name
from octavo.protocol.trt_outputs import DATATYPES, NEEDS_LOGPROBS, asked_outputs
from octavo.sampling import SamplingParams
from octavo.text.request import GenerateRequest, Prompt
from octavo.wire import mc, pb

# Outputs beside the text, in the order of a response, each with the input that asks for it.
OPTIONAL_OUTPUTS = {
    "finish_reason": "return_finish_reason",
    "cumulative_logprob": "return_cumulative_logprob",
    "logprobs": "return_logprobs",
    "num_input_tokens": "return_num_input_tokens",
    "num_output_tokens": "return_num_output_tokens",
    "token_ids": "return_token_ids",
    "stop_reason": "return_stop_reason",
}
# Inputs that are taken though no model declares them, and those that stand in for the prompt.
HIDDEN = ALIASES | {
    "input_lengths": TensorSpec("INT32", (1,), True, ("INT64", "UINT32", "UINT64"), batched=True, hidden=True),
    "stop": TensorSpec("BOOL", (1,), True, hidden=True, replaces="text_input"),
}
_PROMPTS = {"text_input": ("BYTES", ""), "input_ids": ("INT32", "text_input"), "messages": ("BYTES", "text_input")}


class TritonStop(NamedTuple):
    """A request, as TensorRT-LLM's clients send it, to end all open requests of ``model`` that have the same id.

    ``wants_final``: whether the client wants to hear of it on a stream.
    """

    model: str
    id: str
    wants_final: bool


class TritonCall(NamedTuple):
    """What a request asks for, and how it wants to be answered.

    ``outputs``: names to return, in order. ``prefixes``: what stands before the answers to each prompt, nothing if nothing does.
    ``show_logprobs``: whether the request set ``logprobs`` itself (else its ``logprobs`` output is ``null``, as vllm_backend's).
    """

    request: GenerateRequest
    id: str
    outputs: tuple[str, ...]
    prefixes: tuple[str, ...]
    show_logprobs: bool


class TritonModel:
    """One model version's tensors, ready to read requests by."""

    def __init__(self, config: mc.ModelConfig, version: int, limits: RequestLimits = DEFAULT_LIMITS) -> None:
        """Take the tensors from a completed configuration."""
        self._limits = limits
        self._name = config.name
        self._version = version
        self._inputs = Inputs(config.name, HIDDEN | {tensor.name: _spec(tensor) for tensor in config.input}, limits)
        declared = {t.name: datatype_name(t.data_type) for t in config.output}
        renamed = {theirs: declared[ours] for theirs, (ours, _) in OUTPUTS.items() if ours in declared}
        self._outputs = declared | renamed | DATATYPES | {"stop_reason": "BYTES"}

    def read(self, request: pb.ModelInferRequest, unary: bool = False) -> TritonCall | TritonStop:
        """The call that ``request`` is. A ``unary`` one is never streamed. Raises ``OctavoError`` with Triton's texts."""
        check_id(request.id)
        check_counts(len(request.inputs), len(request.outputs), self._limits)
        parameters = read_parameters(request.parameters)
        given = self._inputs.read(request)
        check_outputs(self._name, request.outputs, self._outputs)
        if _flag(given, "stop", False):
            return self._stop(request, parameters)
        tensors, options, stop_words, bad_words = translate(given)
        options = option_names(parameters.options) | options | read_sampling_json(_bytes(tensors, "sampling_parameters", b"{}"))
        sampling = sampling_params(options)
        if sampling.prompt_logprobs is not None:
            raise Unsupported("The sampling parameter 'prompt_logprobs' is not served over this interface yet; leave it out.")
        stream = _flag(tensors, "stream", False)
        prompts = read_prompts(tensors, _shape(request, "input_ids"))
        asked = ["text_output", *(name for name, flag in OPTIONAL_OUTPUTS.items() if _flag(tensors, flag, False))]
        listed = {output.name for output in request.outputs}
        outputs = (*output_names(asked, given, listed), *asked_outputs(given, listed))
        return TritonCall(
            request=GenerateRequest(
                model=self._name,
                version=self._version,
                prompts=prompts,
                sampling=_with_needed_logprobs(sampling, outputs),
                id=request.id,
                stream=stream and not unary,
                priority=parameters.priority,
                queue_timeout=parameters.queue_timeout,
                cache_salt=parameters.cache_salt,
                stop_words=stop_words,
                bad_words=bad_words,
            ),
            id=request.id,
            outputs=outputs,
            prefixes=_prefixes(tensors, prompts, stream),
            show_logprobs=sampling.logprobs is not None,
        )

    def _stop(self, request: pb.ModelInferRequest, parameters: RequestParameters) -> TritonStop:
        if not request.id:
            raise InvalidRequest("A request with stop must have the id of the requests that it is to end.")
        return TritonStop(self._name, request.id, parameters.empty_final)


def _flag(tensors: Mapping[str, list[Element]], name: str, default: bool) -> bool:
    return bool(tensors[name][0]) if name in tensors else default


def _bytes(tensors: Mapping[str, list[Element]], name: str, default: bytes = b"") -> bytes:
    value = tensors[name][0] if name in tensors else default
    return value if isinstance(value, bytes) else default


def _spec(tensor: mc.ModelInput) -> TensorSpec:
    """How a declared input is taken; a prompt may come more than once, and in place of another."""
    datatype, dims = datatype_name(tensor.data_type), tuple(tensor.dims)
    if _PROMPTS.get(tensor.name, ("", ""))[0] != datatype:
        return TensorSpec(datatype, dims, tensor.optional)
    alternatives = ("INT64", "UINT32", "UINT64") if datatype == "INT32" else ()
    replaces = _PROMPTS[tensor.name][1]
    return TensorSpec(datatype, dims, tensor.optional, alternatives, batched=tensor.name != "messages", replaces=replaces)


def _shape(request: pb.ModelInferRequest, name: str) -> tuple[int, ...]:
    return next((tuple(tensor.shape) for tensor in request.inputs if tensor.name == name), ())


def _prefixes(tensors: Mapping[str, list[Element]], prompts: list[Prompt], stream: bool) -> tuple[str, ...]:
    """The prompts if they are to be repeated and are texts."""
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    prepend = not _flag(tensors, "exclude_input_in_output", stream or not texts)
    if stream and prepend:
        raise InvalidRequest("Error generating stream: When streaming, `exclude_input_in_output` = False is not allowed.")
    if prepend and not texts:
        raise InvalidRequest("exclude_input_in_output must be true or absent unless the prompt is text_input.")
    return tuple(texts) if prepend else ()


def _with_needed_logprobs(sampling: SamplingParams, outputs: tuple[str, ...]) -> SamplingParams:
    """A cumulative logprob needs those of the chosen tokens."""
    if sampling.logprobs is not None or not ({"cumulative_logprob", "cum_log_probs"} | NEEDS_LOGPROBS) & set(outputs):
        return sampling
    return msgspec.structs.replace(sampling, logprobs=0)
