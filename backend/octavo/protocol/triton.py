"""Triton's dialect, inwards: a ``ModelInferRequest`` with vllm_backend's tensors to a ``GenerateRequest``.

Tensors and defaults are vllm_backend's: ``text_input`` alone is required, the prompt is put before the text unless it is
streamed or ``exclude_input_in_output`` is true, and further outputs come only if a ``return_*`` flag asks for them.
"""

from typing import NamedTuple

import msgspec

from octavo.errors import InvalidRequest, Unsupported
from octavo.protocol.parameters import read_parameters, read_sampling_json
from octavo.protocol.rejection import check_id
from octavo.protocol.sampling_fields import sampling_params
from octavo.protocol.tensors import Element, TensorSpec, check_counts, check_outputs, datatype_name, read_inputs
from octavo.sampling import SamplingParams
from octavo.text.request import GenerateRequest
from octavo.wire import mc, pb

# Outputs beside the text, in the order of a response, each with the input that asks for it.
OPTIONAL_OUTPUTS = {
    "finish_reason": "return_finish_reason",
    "cumulative_logprob": "return_cumulative_logprob",
    "logprobs": "return_logprobs",
    "num_input_tokens": "return_num_input_tokens",
    "num_output_tokens": "return_num_output_tokens",
}


class TritonCall(NamedTuple):
    """What a request asks for, and how it wants to be answered.

    ``outputs``: names to return, in order. ``prefix``: what stands before the text. ``show_logprobs``: whether the request
    set ``logprobs`` itself (else its ``logprobs`` output is ``null``, as vllm_backend's).
    """

    request: GenerateRequest
    id: str
    outputs: tuple[str, ...]
    prefix: str
    show_logprobs: bool


class TritonModel:
    """One model version's tensors, ready to read requests by."""

    def __init__(self, config: mc.ModelConfig, version: int) -> None:
        """Take the tensors from a completed configuration."""
        self._name = config.name
        self._version = version
        self._inputs = {t.name: TensorSpec(datatype_name(t.data_type), tuple(t.dims), t.optional) for t in config.input}
        self._outputs = {t.name: datatype_name(t.data_type) for t in config.output}

    def read(self, request: pb.ModelInferRequest, unary: bool = False) -> TritonCall:
        """The call that ``request`` is. A ``unary`` one is never streamed. Raises ``OctavoError`` with Triton's texts."""
        check_id(request.id)
        check_counts(request)
        parameters = read_parameters(request.parameters)
        tensors = self._read_tensors(request)
        stream = _flag(tensors, "stream", False)
        prepend = not _flag(tensors, "exclude_input_in_output", stream)
        if stream and prepend:
            raise InvalidRequest("Error generating stream: When streaming, `exclude_input_in_output` = False is not allowed.")
        options = parameters.options | read_sampling_json(_bytes(tensors, "sampling_parameters", b"{}"))
        sampling = sampling_params(options)
        if sampling.prompt_logprobs is not None:
            raise Unsupported("The sampling parameter 'prompt_logprobs' is not served over this interface yet; leave it out.")
        prompt = _text(tensors, "text_input")
        outputs = self._outputs_of(request, tensors)
        return TritonCall(
            request=GenerateRequest(
                model=self._name,
                version=self._version,
                prompt=prompt,
                sampling=_with_needed_logprobs(sampling, outputs),
                stream=stream and not unary,
                priority=parameters.priority,
                queue_timeout=parameters.queue_timeout,
                cache_salt=parameters.cache_salt,
            ),
            id=request.id,
            outputs=outputs,
            prefix=prompt if prepend else "",
            show_logprobs=sampling.logprobs is not None,
        )

    def _read_tensors(self, request: pb.ModelInferRequest) -> dict[str, list[Element]]:
        tensors = read_inputs(self._name, request, self._inputs)
        check_outputs(self._name, request.outputs, self._outputs)
        return tensors

    def _outputs_of(self, request: pb.ModelInferRequest, tensors: dict[str, list[Element]]) -> tuple[str, ...]:
        """Outputs that are asked for, less those that the request does not list when it lists any."""
        asked = ["text_output", *(name for name, flag in OPTIONAL_OUTPUTS.items() if _flag(tensors, flag, False))]
        listed = {output.name for output in request.outputs}
        return tuple(name for name in asked if not listed or name in listed)


def _flag(tensors: dict[str, list[Element]], name: str, default: bool) -> bool:
    return bool(tensors[name][0]) if name in tensors else default


def _bytes(tensors: dict[str, list[Element]], name: str, default: bytes = b"") -> bytes:
    value = tensors[name][0] if name in tensors else default
    return value if isinstance(value, bytes) else default


def _text(tensors: dict[str, list[Element]], name: str) -> str:
    try:
        return _bytes(tensors, name).decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The input '{name}' must be valid UTF-8, but byte {error.start} is not.") from error


def _with_needed_logprobs(sampling: SamplingParams, outputs: tuple[str, ...]) -> SamplingParams:
    """A cumulative logprob needs those of the chosen tokens."""
    if sampling.logprobs is not None or "cumulative_logprob" not in outputs:
        return sampling
    return msgspec.structs.replace(sampling, logprobs=0)
