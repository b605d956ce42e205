"""The tensors of a text model: what a completed configuration lists. Knows no values.

First vllm_backend's, as it declares them, then our own. ``image`` and ``embedding_request``, which vllm_backend has too, are not
declared because they are not served.
"""

from octavo.wire import mc


def _input(name: str, data_type: mc.DataType, optional: bool = True, dim: int = 1) -> mc.ModelInput:
    return mc.ModelInput(name=name, data_type=data_type, dims=[dim], optional=optional)


def _output(name: str, data_type: mc.DataType, dim: int = -1) -> mc.ModelOutput:
    return mc.ModelOutput(name=name, data_type=data_type, dims=[dim])


INPUTS: tuple[mc.ModelInput, ...] = (
    _input("text_input", mc.TYPE_STRING, optional=False),
    _input("stream", mc.TYPE_BOOL),
    _input("sampling_parameters", mc.TYPE_STRING),
    _input("exclude_input_in_output", mc.TYPE_BOOL),
    _input("return_finish_reason", mc.TYPE_BOOL),
    _input("return_cumulative_logprob", mc.TYPE_BOOL),
    _input("return_logprobs", mc.TYPE_BOOL),
    _input("return_num_input_tokens", mc.TYPE_BOOL),
    _input("return_num_output_tokens", mc.TYPE_BOOL),
    _input("messages", mc.TYPE_STRING),
    _input("input_ids", mc.TYPE_INT32, dim=-1),
    _input("return_token_ids", mc.TYPE_BOOL),
)

OUTPUTS: tuple[mc.ModelOutput, ...] = (
    _output("text_output", mc.TYPE_STRING),
    _output("finish_reason", mc.TYPE_STRING),
    _output("cumulative_logprob", mc.TYPE_FP32),
    _output("logprobs", mc.TYPE_STRING),
    _output("num_input_tokens", mc.TYPE_UINT32, dim=1),
    _output("num_output_tokens", mc.TYPE_UINT32),
    _output("token_ids", mc.TYPE_INT32),
)
